"""A local folder of model files: which model it holds, and loading it without any network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rag.documents.records import IngestError
from rag.models.failure import reason

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".bin", ".pt", ".jinja"}
Model = TypeVar("Model")


def fingerprint(folder: Path) -> str:
    """Return `<folder's name>@<12 hex digits>` of the configuration and weights.

    Files above 4 MiB count by their size and 64 samples spread over them, so that gigabytes need no reading and a
    fine-tuned copy, alike but for some layers, has another fingerprint.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(_SAMPLES):
                file.seek(sample * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def load_model(folder: Path, load: Callable[[], Model]) -> Model:
    """
    Raises:
        IngestError: sentence-transformers is not installed, or the folder holds no model that it can load.
    """
    try:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # a command's errors are one line
        return load()
    except ImportError as error:
        raise IngestError(f"{folder}: models in folders need sentence-transformers ({error})") from None
    except Exception as error:  # every library below has exceptions of its own for a broken folder
        raise IngestError(f"{folder}: no model that can be loaded ({reason(error)})") from None
