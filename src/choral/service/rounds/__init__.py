"""Rounds while they go on: who may join, when a phase is over, what then."""
