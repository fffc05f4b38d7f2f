"""What the outcome log of the drop-in says: rates, ratios of users, sequential looks, interleaved clicks."""
