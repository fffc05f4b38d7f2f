"""What `evaluation.inspect` shows of rollouts and samples: rows, which of them, the page, the tables, the review."""
