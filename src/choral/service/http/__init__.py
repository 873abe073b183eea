"""Requests in, answers out: routes, limits, health checks, certificates (§7)."""
