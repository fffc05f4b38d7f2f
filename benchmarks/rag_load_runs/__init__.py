"""Texts, traffic, peers and services of `benchmarks.rag_load`."""
