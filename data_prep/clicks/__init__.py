"""Click logs into evidence and samples."""
