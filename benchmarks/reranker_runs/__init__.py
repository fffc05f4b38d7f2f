"""Sets, base models and measurements of `benchmarks.reranker`."""
