"""§6: the integers of a vector, the totals after them, and what a vector looks like. No word of a round."""
