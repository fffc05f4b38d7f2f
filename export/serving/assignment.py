"""Which arm of an experiment a user belongs to: a function of the names alone, so that it is the same everywhere."""

from __future__ import annotations

import hashlib


def position(experiment: str, unit: str) -> float:
    """Return the place of `unit` in [0, 1): uniform over units, independent between experiments of different names.

    Args:
        unit: what keeps its arm: a user, a session, or one request.
    """
    digest = hashlib.sha256(f"{experiment}\x00{unit}".encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_chosen(experiment: str, unit: str, share: float) -> bool:
    """Return whether `unit` is among the `share` (0 to 1) of the units. Who is chosen stays so when the share grows."""
    return position(experiment, unit) < share
