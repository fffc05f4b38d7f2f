"""Benchmarks: `python -m benchmarks.<name>` prints a table for people and then one JSON line for programs."""
