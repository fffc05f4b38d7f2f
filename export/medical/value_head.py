"""The value head of a PPO run: taken out of the critic's shards, for the release bundle and for a later round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export.merge import BEST, LATEST
from reward.records.files import BadInput, replacing

# What a critic learns on top of its base: the head, and adapters where the base is frozen.
_HEAD_NAMES = ("score.", "v_head.", "classifier.", "lora_")


def critic_of(run: Path) -> Path | None:
    """Return the critic's folder of the run's best step, else of its last one; None for a run without a critic.

    The trainer keeps the policy of the best step, and the critics of the last steps alone: where the best one's is
    gone, the last one is nearest. The name of the folder above says which step it is.
    """
    steps = [(run / BEST).resolve().name.removeprefix("step_")] if (run / BEST).is_dir() else []
    if (run / LATEST).is_file():
        steps.append((run / LATEST).read_text(encoding="utf-8").strip())
    critics = [run / f"global_step_{step}" / "critic" for step in steps]
    return next((critic for critic in critics if critic.is_dir()), None)


def save_value_head(critic: Path, out: Path) -> int:
    """Write the head (and the critic's adapters) as safetensors and return the number of tensors.

    Raises:
        BadInput: a shard is missing or holds no head.
    """
    from safetensors.torch import save_file

    world = _world_size(critic)
    parts: dict[str, list[Any]] = {}
    for rank in range(world):
        shard = critic / f"model_world_size_{world}_rank_{rank}.pt"
        if not shard.is_file():
            raise BadInput(f"{critic}: lacks {shard.name}")
        for name, tensor in _load(shard).items():
            if any(part in name for part in _HEAD_NAMES):
                parts.setdefault(name, []).append(tensor)
    if not any(name.rpartition(".")[0].endswith(("score", "v_head", "summary")) or "score" in name for name in parts):
        raise BadInput(f"{critic}: its shards hold no value head (known names: {', '.join(_HEAD_NAMES)})")
    tensors = {name: _joined(pieces) for name, pieces in parts.items()}
    with replacing(out) as partial:
        save_file(tensors, str(partial), metadata={"format": "pt"})
    return len(tensors)


def _world_size(critic: Path) -> int:
    try:
        size = json.loads((critic / "fsdp_config.json").read_text(encoding="utf-8")).get("world_size")
    except (OSError, ValueError, AttributeError):
        size = None
    if not isinstance(size, int):
        raise BadInput(f"{critic / 'fsdp_config.json'}: world_size: expected an integer, found {size!r}")
    return size


def _load(shard: Path) -> dict[str, Any]:
    import torch

    # A trainer's own file: its tensors may be distributed ones, which the safe loader refuses.
    return torch.load(shard, map_location="cpu", weights_only=False)


def _joined(pieces: list[Any]) -> Any:
    import torch

    local = [getattr(piece, "_local_tensor", piece) for piece in pieces]
    placed: Any = getattr(pieces[0], "placements", ())
    if len(local) == 1 or not any(place.is_shard() for place in placed):
        return local[0].contiguous().clone()
    return torch.cat(local, dim=placed[0].dim).contiguous()
