"""What the aggregator keeps for good."""
