"""Training, validation and test by query, without leaks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data_prep.expansions.examples import Example
from data_prep.questions.near_duplicates import near_duplicate_groups
from data_prep.questions.split import SFT_SHARES, Split, assign_splits, leaks

NEAR_DUPLICATE = 0.8  # Jaccard similarity of the queries' character pairs


def split(examples: Sequence[Example], seed: int) -> tuple[dict[Split, list[Example]], list[Example]]:
    """Split by a stable hash of the query: 80 % train, 10 % val, 10 % test.

    Returns:
        The examples of each split, in their order; those left out, because a near-duplicate of their query is held out
        further.
    """
    queries = pa.array([example.query for example in examples], pa.string())
    names = assign_splits(queries, SFT_SHARES, seed)
    leaking = leaks(np.asarray(names), near_duplicate_groups(queries, NEAR_DUPLICATE))
    splits: dict[Split, list[Example]] = {"train": [], "val": [], "test": []}
    left_out: list[Example] = []
    for example, name, leaks_out in zip(examples, names.to_pylist(), leaking.tolist(), strict=True):
        (left_out if leaks_out else splits[name]).append(example)
    return splits, left_out
