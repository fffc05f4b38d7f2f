"""Answers of a medical assistant held against each other: graded, compared, sampled for a reviewer."""
