"""What `benchmarks.expansion` runs."""
