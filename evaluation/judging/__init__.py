"""What an LLM judge says of the systems: grades, comparisons in both orders, and how far people correct it."""
