"""Personal data out of free text, by a tenant's settings: see `guard.personal.masking`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.text.normalise import normalise_column
from guard.personal.masking import hints, mask_text
from reward.settings.data import DeidentifySettings


def deidentify_text(text: str, settings: DeidentifySettings) -> tuple[str, Counter[str]]:
    """Mask the personal data in one normalised text (`data_prep.text.normalise`). Idempotent.

    Args:
        settings: `kinds` are masked; what is within one of the texts `keep` stays.

    Returns:
        The text, and how many places of each kind were masked.
    """
    return mask_text(text, settings.kinds, settings.keep)


def deidentify_column(texts: pa.Array, settings: DeidentifySettings) -> tuple[pa.Array, Counter[str]]:
    """Apply `deidentify_text` to each text; a missing text stays missing.

    Args:
        texts: Arrow strings, normalised.

    Returns:
        As many strings, in the same order, and how many places of each kind were masked.
    """
    masked = Counter[str]()
    if not settings.kinds:
        return texts, masked
    pattern = hints(settings.kinds)
    # Arrow looks through a million texts in about a second; the few that may hold something are read by Python.
    rows = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    cleaned = []
    for text in texts.filter(rows).to_pylist():
        clean, found = deidentify_text(text, settings)
        cleaned.append(clean)
        masked += found
    return pc.replace_with_mask(texts, rows, pa.array(cleaned, texts.type)), masked


def replace_personal(texts: pa.Array, mask: Callable[[str], str]) -> pa.Array:
    """Apply `mask` (`guard.personal.masking.mask_message` or `mask_id`) to each text that may hold personal data.

    Args:
        texts: Arrow strings, or lists of them.

    Returns:
        As many, in the same order; a missing one stays missing.
    """
    if pa.types.is_list(texts.type):
        if not _suspects(texts.flatten()).true_count:
            return texts
        lists = [None if one is None else [mask(text) for text in one] for one in texts.to_pylist()]
        return pa.array(lists, texts.type)
    rows = _suspects(texts)
    if not rows.true_count:
        return texts
    return pc.replace_with_mask(
        texts, rows, pa.array([mask(text) for text in texts.filter(rows).to_pylist()], texts.type)
    )


def _suspects(texts: pa.Array) -> pa.BooleanArray:
    """Say of which texts `mask` must be tried: those that hold a hint once they are normalised."""
    return pc.fill_null(pc.match_substring_regex(normalise_column(texts, keep_lines=False), hints()), False)
