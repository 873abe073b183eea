"""One round of secure aggregation, sans-IO: no socket, clock, log or thread (docs/protocol.md)."""
