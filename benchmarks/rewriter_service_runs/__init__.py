"""What `benchmarks.rewriter_service` measures the drop-in with."""
