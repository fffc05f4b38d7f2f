"""What `benchmarks.safety` runs on: hand-made answers, stuffing, silver labels."""
