"""Choral: federated learning in which the aggregator learns only the sum of its members' updates."""

__version__ = "0.1.0"
