"""What Choral does together with others. Each folder is found by its name, and may be removed."""
