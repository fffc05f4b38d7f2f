"""What every HTTP service of ours puts before its routes: bounds, other sites' pages, a stop that finishes its work."""
