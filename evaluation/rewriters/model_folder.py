"""The model folder that a `--model` names: merged first when it is a trainer's checkpoint, and checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from reward.records.files import BadInput

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


def ready_folder(name: str, path: Path, merged: Path) -> Path:
    """Return `path` where it is a Hugging Face model folder, else the folder that its checkpoint is merged into.

    Args:
        path: a model folder, a run folder, or a step of verl's (`global_step_N`).
        merged: where merged checkpoints go, a folder `name` each; an unchanged one is not merged again.

    Raises:
        BadInput: the checkpoint cannot be merged.
    """
    if not _is_checkpoint(path):
        return path
    out = merged / name
    command = [sys.executable, "-m", "export.merge", "--checkpoint", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise BadInput(f"--model {name}: {(told or lines or [f'export.merge ended with {done.returncode}'])[-1]}")
    return out


def check_vocabulary(folder: Path) -> None:
    """Check that tokenizer, config and weights are of one vocabulary, and the weights whole; padding is fine.

    Raises:
        BadInput: the tokenizer has ids that the model has no embedding for, weights and config differ, or a file of
            weights is damaged or cut off.
    """
    config = _read_object(folder / "config.json")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    rows = _embedding_rows(folder)
    if rows is not None and isinstance(size, int) and rows != size:
        raise BadInput(f"{folder}: config.json has a vocabulary of {size}, the weights have {rows} embeddings")
    highest = _highest_token(folder / "tokenizer.json")
    known = rows if rows is not None else size
    if highest is not None and isinstance(known, int) and highest >= known:
        raise BadInput(
            f"{folder}: the tokenizer has token ids up to {highest}, the model {known} embeddings: "
            "the checkpoint is of another vocabulary"
        )


def _is_checkpoint(path: Path) -> bool:
    """Say whether a folder is a trainer's: it holds shards, an actor, or the note of its last step."""
    marks = ("fsdp_config.json", "actor/fsdp_config.json", "latest_checkpointed_iteration.txt")
    own = (path / "config.json").is_file()
    return not own and (any((path / mark).is_file() for mark in marks) or path.name.startswith("global_step_"))


def _embedding_rows(folder: Path) -> int | None:
    """Return the rows of the input embedding, out of the headers of the weights; None where it has another name.

    Raises:
        BadInput: a file of weights is damaged or cut off.
    """
    rows = None
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in _header(path).items():
            if name.endswith(_EMBEDDINGS):
                rows = int(tensor["shape"][0])
    return rows


def _header(path: Path) -> dict[str, Any]:
    """Return the tensors that a safetensors file holds: name → its `shape` and `data_offsets`.

    Raises:
        BadInput: it is none, or ends before its last tensor does.
    """
    size = path.stat().st_size
    with path.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if not 0 < length < 100_000_000:
            raise BadInput(f"{path}: damaged: no safetensors header")
        try:
            header = json.loads(weights.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
            shapes = [tensor["shape"] for name, tensor in header.items() if name.endswith(_EMBEDDINGS)]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise BadInput(f"{path}: damaged: its header is not what safetensors writes") from None
    if size < end:
        raise BadInput(f"{path}: cut off: {size:,} of {end:,} bytes are there")
    if not all(isinstance(shape, list) and shape and isinstance(shape[0], int) for shape in shapes):
        raise BadInput(f"{path}: damaged: its header is not what safetensors writes")
    return header


def _highest_token(path: Path) -> int | None:
    """Return the highest id of the tokenizer's own vocabulary. Tokens added for other uses (images) may lie beyond."""
    if not path.is_file():
        return None
    vocabulary = (_read_object(path).get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        return max(vocabulary.values(), default=None)
    return len(vocabulary) - 1 if isinstance(vocabulary, list) else None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: expected an object")
    return value
