"""Looking at a participant, at its way to the aggregator, and at what happened. What verbs print."""
