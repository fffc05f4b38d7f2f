"""Text compared by meaning: one folding, numbers as values, negations."""
