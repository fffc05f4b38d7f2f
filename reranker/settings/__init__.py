"""Typed settings of a run."""
