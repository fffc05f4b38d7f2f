"""What `benchmarks.promotion` simulates."""
