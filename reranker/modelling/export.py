"""Write the model as a folder that any reader understands, and prove that it gives the trained model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reranker.modelling.calibration import Platt
from reranker.modelling.head import write_calibration
from reranker.modelling.scoring import logits, shares


def write_folder(cross_encoder: Any, platt: Platt, max_length: int, folder: Path) -> None:
    """Write calibrated weights and tokenizer. The tokenizer cuts at `max_length`, so that a reader cuts where training
    did; the activation is a sigmoid, so that a reader gives shares."""
    import torch

    write_calibration(cross_encoder, platt)
    cross_encoder.activation_fn = torch.nn.Sigmoid()
    cross_encoder.tokenizer.model_max_length = max_length
    cross_encoder.save_pretrained(str(folder), create_model_card=False)


def open_folder(folder: Path) -> Any:
    """Open an exported folder as the service does."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), local_files_only=True)


def score_shift(
    folder: Path, pairs: Sequence[tuple[str, str]], trained: NDArray[np.float64], platt: Platt
) -> tuple[float, NDArray[np.float64]]:
    """Return the largest difference in [0, 1] between the trained model's calibrated scores and the folder's, and the
    folder's logits. `trained`: logits of the model in memory, in the order of `pairs`."""
    found = logits(open_folder(folder), pairs)
    return float(np.abs(shares(found) - platt(trained)).max()), found
