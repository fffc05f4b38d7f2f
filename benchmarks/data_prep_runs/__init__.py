"""Inputs, peers and measurements of `benchmarks.data_prep`."""
