"""What the reward of query rewriting is made of."""
