"""Turn a trainer checkpoint into a Hugging Face model folder, and check that it loads.

    python -m export.merge --checkpoint outputs/rl/fivedoctors --out outputs/rl/fivedoctors/final

`--checkpoint` is a run folder (its best step is taken, `checkpoints/best`, else its last; `--last` takes the last in
any case), a step (`global_step_N`) or an RL step's `actor`. verl's own
merger does the work, in a process of its own. A LoRA adapter, which that merger leaves beside the untouched base
weights, is folded into them. Weights come out in bfloat16. The folder appears complete or not at all, with a
`provenance.json`; an unchanged checkpoint is not merged again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LATEST = "latest_checkpointed_iteration.txt"
BEST = "checkpoints/best"  # of recipes.best_checkpoint
PROVENANCE = "provenance.json"
ADAPTER = "lora_adapter"


class BadCheckpoint(Exception):
    """A checkpoint that cannot be merged: one line naming what is wrong."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Merge a trainer checkpoint into a Hugging Face model folder.")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="run folder, global_step_N, or an RL step's global_step_N/actor"
    )
    parser.add_argument("--last", action="store_true", help="of a run folder its last step, though a best one is kept")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--adapter", type=Path, help="also keep the LoRA adapter in this folder")
    args = parser.parse_args(argv)
    try:
        shards = find_shards(args.checkpoint, last=args.last)
        made_from = fingerprint(shards)
        if is_up_to_date(args.out, made_from) and has_adapter(args.out, args.adapter):
            print(f"{args.out}: up to date with {shards}")
            return 0
        provenance = merge(shards, args.out, made_from, args.adapter)
    except (BadCheckpoint, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {provenance['parameters']:,} parameters from {shards}")
    return 0


def find_shards(checkpoint: Path, *, last: bool = False) -> Path:
    """Return the folder that holds the policy's shards.

    Args:
        last: of a run folder take its last step, though a best one is kept.

    Raises:
        BadCheckpoint: none is there, or a shard, the config or the tokenizer is missing.
    """
    if not checkpoint.is_dir():
        raise BadCheckpoint(f"{checkpoint}: no such folder")
    folder = checkpoint
    if (checkpoint / BEST).is_dir() and not last:
        folder = (checkpoint / BEST).resolve()
    elif (checkpoint / LATEST).is_file():
        step = (checkpoint / LATEST).read_text(encoding="utf-8", errors="replace").strip()
        folder = checkpoint / f"global_step_{step}"
        if not folder.is_dir():
            raise BadCheckpoint(f"{checkpoint}: {LATEST} names step {step!r}, but there is no {folder.name}")
    if not (folder / "fsdp_config.json").is_file():
        folder = folder / "actor"
    if not (folder / "fsdp_config.json").is_file():
        raise BadCheckpoint(f"{checkpoint}: no checkpoint here ({LATEST} or fsdp_config.json, here or in actor)")
    world_size = _read_object(folder / "fsdp_config.json").get("world_size")
    if not isinstance(world_size, int):
        raise BadCheckpoint(f"{folder / 'fsdp_config.json'}: world_size: expected an integer, found {world_size!r}")
    needed = [f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    for name in (*needed, "huggingface/config.json", "huggingface/tokenizer_config.json"):
        if not (folder / name).is_file():
            raise BadCheckpoint(f"{folder}: lacks {name}")
    architecture = (_read_object(folder / "huggingface/config.json").get("architectures") or ["none"])[0]
    if not architecture.endswith("ForCausalLM"):
        raise BadCheckpoint(f"{folder}: holds {architecture}, not a language model (the critic is not for export)")
    return folder


def fingerprint(shards: Path) -> dict[str, str]:
    """Hash (SHA-256) every file that decides the merged model."""
    files = sorted([*shards.glob("model_world_size_*.pt"), *shards.glob("huggingface/*.*"), *shards.glob("*.json")])
    hashes = {}
    for path in files:
        # Full weights that the trainer may have saved beside the shards take no part in the merge.
        if path.is_file() and path.suffix not in (".safetensors", ".bin"):
            with path.open("rb") as content:
                hashes[str(path.relative_to(shards))] = hashlib.file_digest(content, "sha256").hexdigest()
    return hashes


def is_up_to_date(out: Path, made_from: dict[str, str]) -> bool:
    """Return whether `out` is a finished merge of exactly these files."""
    if not (out / PROVENANCE).is_file() or not any(out.glob("*.safetensors")):
        return False
    return _read_object(out / PROVENANCE).get("made_from") == made_from


def has_adapter(out: Path, adapter: Path | None) -> bool:
    """Return whether the adapter that is asked for is there, or the merged checkpoint had none."""
    return adapter is None or adapter.is_dir() or not _read_object(out / PROVENANCE).get("lora_folded")


def merge(shards: Path, out: Path, made_from: dict[str, str], adapter: Path | None = None) -> dict[str, Any]:
    """Merge into a folder beside `out`, check it, then take `out`'s place. Returns the provenance written.

    Args:
        adapter: where a LoRA checkpoint's adapter is kept, too; a checkpoint of all weights has none.

    Raises:
        BadCheckpoint: `out` is no model folder, the merger failed, or its result does not load.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "config.json").is_file())):
        raise BadCheckpoint(f"{out}: exists and is no model folder; choose another --out")
    # verl's merger writes beside `out`: a failed merge leaves the earlier model in place.
    partial, log = out.with_name(out.name + ".partial"), out.with_name(out.name + ".merge.log")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(shards), "--target_dir", str(partial)]
    # A plug-in meant for the trainer has no business in the merger.
    environment = {k: v for k, v in os.environ.items() if k not in ("VERL_USE_EXTERNAL_MODULES", "VERL_PLATFORM")}
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code != 0:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise BadCheckpoint(f"{shards}: verl's merger failed: {(lines or ['no output'])[-1]} (log: {log})")
    # Serving knows no adapters: what LoRA learned must be in the weights.
    folded = (partial / ADAPTER).is_dir()
    if folded:
        if adapter is not None:
            shutil.rmtree(adapter, ignore_errors=True)
            shutil.copytree(partial / ADAPTER, adapter)
        fold_adapter(partial)
    provenance = {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": str(shards),
        "parameters": check_model(partial),
        "lora_folded": folded,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "verl")},
        "made_from": made_from,
    }
    (partial / PROVENANCE).write_text(json.dumps(provenance, ensure_ascii=False, indent=2), encoding="utf-8")
    _replace_folder(partial, out)
    log.unlink()
    return provenance


def fold_adapter(folder: Path) -> None:
    """Add the LoRA adapter in `folder/lora_adapter` to the weights of `folder` and remove it.

    Raises:
        BadCheckpoint: the adapter's alpha is unknown, so it would change nothing.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = folder / ADAPTER
    if not _read_object(adapter / "adapter_config.json").get("lora_alpha"):
        raise BadCheckpoint(f"{folder}: LoRA checkpoint without lora_alpha (lora_train_meta.json is missing)")
    # Folded in float32: in bfloat16 small updates vanish in rounding before they are summed.
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    model = model.to(torch.bfloat16)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    model.save_pretrained(folder)
    shutil.rmtree(adapter)


def check_model(folder: Path) -> int:
    """Load config, tokenizer and weights; return the number of parameters.

    Raises:
        BadCheckpoint: something does not load, a weight is missing or not finite, or there is no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{folder}: merged model does not load: {str(error).splitlines()[0]}") from None
    model, loading = loaded
    if loading["missing_keys"] or loading["unexpected_keys"]:
        key = sorted([*loading["missing_keys"], *loading["unexpected_keys"]])[0]
        raise BadCheckpoint(f"{folder}: merged weights do not fit the config (first: {key})")
    if not tokenizer.chat_template:
        raise BadCheckpoint(f"{folder}: tokenizer has no chat template")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise BadCheckpoint(f"{folder}: weight {name} is not finite: the training diverged")
    return sum(weight.numel() for weight in model.parameters())


def _replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`; until the last rename the earlier model is on disk."""
    previous = old.with_name(old.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if old.exists():
        old.rename(previous)
    new.rename(old)
    shutil.rmtree(previous, ignore_errors=True)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: not JSON ({getattr(error, 'msg', type(error).__name__)})") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: expected an object")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
