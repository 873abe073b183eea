"""Sealing by Syft Crypto (PROTOCOL §3.4), and rounds as files in PySyft's synchronised folders (§7.6)."""
