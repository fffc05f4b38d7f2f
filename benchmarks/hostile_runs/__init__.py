"""What `benchmarks.rag_hostile` runs."""
