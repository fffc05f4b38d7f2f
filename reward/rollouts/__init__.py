"""A run's rollouts: their log, what training drops, and what the log shows."""
