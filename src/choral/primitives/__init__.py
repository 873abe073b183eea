"""Cryptographic building blocks. No word of the protocol is spoken in here."""
