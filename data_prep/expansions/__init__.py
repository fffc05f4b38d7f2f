"""Data of query expansion: checking, measuring, mending, enlarging, balancing and splitting it."""
