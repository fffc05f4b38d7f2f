"""Where a comparison and its models come from."""
