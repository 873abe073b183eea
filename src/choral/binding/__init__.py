"""What both ends agree on about carrying (§7): signed headers, sizes, refusals, TLS."""
