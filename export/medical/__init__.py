"""A round of the medical assistant and its release: what is taken from a run, checked and bundled."""
