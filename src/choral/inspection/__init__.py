"""Looking at a participant and at its way to the aggregator. What `choral doctor` calls."""
