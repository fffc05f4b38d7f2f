"""What a model's client raises: the caller counts it, says so in its answer and goes on without the model."""

from __future__ import annotations


class ModelFailure(Exception):
    """A model gave no usable answer: one line saying why."""


class BrokenOff(ModelFailure):
    """A language model's answer that is not whole: `text` is what there is of it."""

    def __init__(self, problem: str, text: str):
        super().__init__(problem)
        self.text = text


def reason(error: BaseException) -> str:
    """Describe an exception of a library in one line, with its cause where the library hides it."""
    error = error.__cause__ or error
    return " ".join(f"{type(error).__name__} {error}".split())[:300]
