"""Retrieval sets, peers and runs of `benchmarks.retrieval`."""
