"""What a run was made of: so that a finished one is not repeated, and none resumes on another one's checkpoints.

The record goes to `<output>/run.json` before training and to `<output>/final/run.json` when everything is done.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipes.checkpoints import TRACKER_FILE
from reward.records.files import BadInput, file_sha256
from reward.settings.services import ServiceSettings

RECORD_FILE = "run.json"
PACKAGES = ("verl", "vllm", "torch", "transformers", "ray")
# What decides the result. Everything else (batch cuts, memory, endpoints, retries, the breaker, how long and how often)
# may change between a run and its continuation.
_DECIDING = (
    "algorithm",
    "rewriter.task",
    "rewriter.reward",
    "rewriter.judge",
    "rewriter.tenant.tenant_id",
    "rewriter.tenant.protected_groups",
    "rewriter.tenant.products",
    "actor_rollout_ref.actor.optim",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.use_kl_loss",
    "critic.optim",
    "optim",
    "model.lora_rank",
)
_FREE = (
    "rewriter.reward.breaker",
    *(f"rewriter.judge.{key}" for key in (*ServiceSettings.model_fields, "base_url", "price", "proxy_from_env")),
    *(f"recipe.{trainer}.{key}" for trainer in ("rl", "sft") for key in ("epochs", "micro_batch")),
    "recipe.rl.validate_every_epochs",
)
LARGEST_HASHED = 2**30  # bytes; of larger weights the size stands for the content


def run_record(name: str, config: DictConfig) -> dict[str, Any]:
    """Hashes of the deciding settings, the data and the starting weights; the length asked for; versions."""
    chosen = OmegaConf.create({})
    for key in (f"recipe.{config.recipe.trainer}", *_DECIDING):
        value = OmegaConf.select(config, key)
        if value is not None:
            OmegaConf.update(chosen, key, value, force_add=True)
    for key in _FREE:
        if OmegaConf.select(chosen, key) is not None:
            OmegaConf.update(chosen, key, None)
    settings = json.dumps(OmegaConf.to_container(chosen, resolve=True), sort_keys=True, ensure_ascii=False)
    return {
        "recipe": name,
        "config_sha256": _sha256(settings.encode()),
        "data_sha256": file_sha256(Path(config.data.train_files)),
        "start_sha256": _weights_key(str(config.model.path)),
        "length": {"steps": config.trainer.total_training_steps, "epochs": config.trainer.total_epochs},
        "max_new_tokens": OmegaConf.select(config, "recipe.rl.max_new_tokens"),
        "versions": installed_versions(),
    }


def check_output(output: Path, record: dict[str, Any]) -> bool:
    """Whether the very same run stands finished in `output`.

    Raises:
        BadInput: the folder holds checkpoints of other settings, data or starting weights: they must not be resumed.
    """
    finished = output / "final" / RECORD_FILE
    if _read(finished) == record:
        return True
    other = _read(output / RECORD_FILE)
    if other and (output / TRACKER_FILE).is_file():
        differing = [key for key in ("config_sha256", "data_sha256", "start_sha256") if other.get(key) != record[key]]
        if differing:
            what = ", ".join(key.removesuffix("_sha256") for key in differing)
            raise BadInput(
                f"recipe.output_dir: {output} holds a run that differs in its {what}: resuming it would mix the two; "
                f"choose another folder or remove that one"
            )
    return False


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """The record in `path`; None when there is none, or a torn one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _weights_key(path: str) -> str:
    """Of a local folder: names and contents of its weights (sizes of large ones: 16 GB are not read); else the name."""
    files = sorted(Path(path).glob("*.safetensors"))
    if not files:
        return _sha256(path.encode())
    sizes = [file.stat().st_size for file in files]
    described = [
        (file.name, file_sha256(file) if size <= LARGEST_HASHED else size)
        for file, size in zip(files, sizes, strict=True)
    ]
    return _sha256(json.dumps(described).encode())


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
