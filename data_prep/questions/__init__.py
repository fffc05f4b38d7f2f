"""Questions compared: same, nearly the same, in which split."""
