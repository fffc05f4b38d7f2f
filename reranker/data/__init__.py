"""From files to groups of passages."""
