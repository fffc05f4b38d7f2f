"""The reward engine: what a sample is, the services it talks to, and how a rewrite is scored."""
