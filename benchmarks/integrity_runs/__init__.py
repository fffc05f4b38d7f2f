"""Suite, attacks, services and runs of `benchmarks.reward_integrity`."""
