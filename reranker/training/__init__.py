"""Losses, the trainer, what it watches, and what becomes of the model."""
