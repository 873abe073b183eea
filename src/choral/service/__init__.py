"""The aggregator as a service: Quart on asyncio, SQLite beneath (PROTOCOL §7)."""
