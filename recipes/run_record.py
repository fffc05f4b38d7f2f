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

from reward.records import BadInput

RECORD_FILE = "run.json"
PACKAGES = ("verl", "vllm", "torch", "transformers", "ray")
# May change between a run and its continuation: how long, how often, where to look, where the service stands.
_FREE = (
    "trainer.total_training_steps",
    "trainer.total_epochs",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.logger",
    "recipe.rl.epochs",
    "recipe.rl.save_every_epochs",
    "recipe.sft.epochs",
    "rewriter.tenant.rag.url",
    "rewriter.tenant.rag.timeout",
    "rewriter.tenant.baseline.url",
)


def run_record(name: str, config: DictConfig) -> dict[str, Any]:
    """Hashes of configuration, data and starting weights, the length asked for, and versions."""
    fixed = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    for key in _FREE:
        if OmegaConf.select(fixed, key) is not None:
            OmegaConf.update(fixed, key, None, force_add=True)
    # Copies of the freed keys that the recipe hands to the reward function.
    OmegaConf.update(fixed, "reward.custom_reward_function.reward_kwargs", None, force_add=True)
    settings = json.dumps(OmegaConf.to_container(fixed), sort_keys=True, ensure_ascii=False)
    return {
        "recipe": name,
        "config_sha256": _sha256(settings.encode()),
        "data_sha256": _sha256(Path(config.data.train_files).read_bytes()),
        "start_sha256": _weights_key(str(config.model.path)),
        "length": {"steps": config.trainer.total_training_steps, "epochs": config.trainer.total_epochs},
        "versions": {package: _version(package) for package in PACKAGES},
    }


def check_output(output: Path, record: dict[str, Any]) -> bool:
    """Whether the very same run stands finished in `output`.

    Raises:
        BadInput: the folder holds a run of other settings, data or starting weights, which must not be resumed.
    """
    finished = output / "final" / RECORD_FILE
    if finished.is_file() and json.loads(finished.read_text(encoding="utf-8")) == record:
        return True
    started = output / RECORD_FILE
    if started.is_file():
        other = json.loads(started.read_text(encoding="utf-8"))
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


def _weights_key(path: str) -> str:
    """Of a local folder: names, sizes and times of its weights (16 GB are not read for this); else the hub name."""
    files = sorted(Path(path).glob("*.safetensors"))
    described = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return _sha256(json.dumps([path, described]).encode())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
