"""Setups, worker and probe of `benchmarks.gpu_check`."""
