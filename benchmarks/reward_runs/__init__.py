"""Traffic, services, peers and runs of `benchmarks.reward_engine` and `benchmarks.step_overhead`."""
