"""The rest of the machine: host, shared and locked memory, disk, where the model comes from, package versions."""

from __future__ import annotations

import os
import re
import resource
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil
from omegaconf import DictConfig

from recipes.checks.finding import Finding, bad, ok, warning
from recipes.model_facts import ModelFacts

GIB = 2**30
SHARED_GIB = 8.0  # NCCL's and vLLM's buffers; Docker gives 64 MB without --ipc=host
SECONDS = 3.0
LOCK = Path(__file__).resolve().parents[2] / "requirements" / "gpu.lock"
# Bytes a trained weight takes in a checkpoint: itself and two Adam moments, in fp32.
TRAINED_BYTES = 12


def host_memory() -> float:
    """GiB that this machine or its container may use."""
    total = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # not this kind of machine, or "max"
    return total / GIB


def host_findings(needed: float, total: float) -> list[Finding]:
    """Compare host memory with the plan's, in GiB."""
    text = f"{total:.0f} GiB, about {needed:.0f} needed"
    if total < 0.75 * needed:
        return [bad("host RAM", f"{text}: offload less (recipe.machine.offload_actor, offload_critic) or train=lora")]
    return [warning("host RAM", text) if total < needed else ok("host RAM", text)]


def shared_memory_findings(path: Path = Path("/dev/shm")) -> list[Finding]:
    """Look at the size of shared memory, where NCCL and the rollout engine exchange data."""
    try:
        size = shutil.disk_usage(path).total / GIB
    except OSError as error:
        return [bad("shm", f"{path}: {error.strerror}")]
    if size < SHARED_GIB:
        return [bad("shm", f"{path} has {size:.2f} GiB, {SHARED_GIB:.0f} needed: docker run --ipc=host")]
    return [ok("shm", f"{path} has {size:.0f} GiB")]


def locked_memory_findings(soft: int | None = None) -> list[Finding]:
    """Look at the limit on locked memory (`ulimit -l`), bytes; that of this process by default."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if soft is None else soft
    if limit == resource.RLIM_INFINITY:
        return [ok("memlock", "unlimited")]
    return [warning("memlock", f"{limit >> 10} KiB; InfiniBand needs docker run --ulimit memlock=-1")]


def checkpoint_gib(config: DictConfig, facts: ModelFacts) -> float:
    """GiB that the checkpoints which are kept and the merged model take on the disk."""
    merged = facts.parameters * 2
    if config.recipe.trainer == "sft":
        sft = config.recipe.sft
        one = _checkpoint(facts.parameters, facts.lora_parameters(sft.lora_rank, sft.frozen_layers))
        return (one * config.trainer.max_ckpt_to_keep + merged) / GIB
    adapters = facts.lora_parameters(config.recipe.rl.lora_rank, config.recipe.rl.frozen_layers)
    # The best one is kept beside them, without the optimiser's moments.
    best = facts.parameters * 2 + adapters * 2 if adapters else facts.parameters * 4
    total = _checkpoint(facts.parameters, adapters) * (config.trainer.max_actor_ckpt_to_keep or 1) + best + merged
    if config.algorithm.adv_estimator == "gae":
        # With one to keep, verl writes the new one before it removes the old.
        kept = max(2, config.trainer.max_critic_ckpt_to_keep or 1)
        total += _checkpoint(facts.critic_parameters, adapters) * kept
    return total / GIB


def _checkpoint(weights: int, adapters: int) -> int:
    return weights * 2 + adapters * 6 if adapters else weights * TRAINED_BYTES


def nearest_folder(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def disk_findings(output: Path, needed: float) -> list[Finding]:
    """Compare the free space under `output` with what the checkpoints take, in GiB."""
    free = shutil.disk_usage(nearest_folder(output)).free / GIB
    text = f"{free:.0f} GiB free, {needed:.0f} needed for the checkpoints that are kept"
    if free < needed:
        return [bad("disk", f"{text} in {output}")]
    return [warning("disk", text) if free < 1.2 * needed else ok("disk", text)]


def model_findings(path: str, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Say where a model of the hub comes from: a folder of its name, the hub's cache, or the hub, which must answer."""
    if Path(path).is_dir():
        return [ok("model", f"{path} (local)")]
    if _cached(path, environment):
        return [ok("model", f"{path} (in the hub's cache)")]
    if environment.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return [bad("model", f"{path} is not in the hub's cache, and HF_HUB_OFFLINE is set")]
    address = f"{environment.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{path}/resolve/main/config.json"
    headers = {"Authorization": f"Bearer {token}"} if (token := environment.get("HF_TOKEN")) else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers, method="HEAD"), timeout=SECONDS):
            return [ok("model", f"{path} (will be downloaded)")]
    except urllib.error.HTTPError as error:
        return [bad("model", f"{path}: the hub answers {error.code} (is the name right? HF_TOKEN set?)")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return [bad("model", f"{path} is not local and the hub cannot be reached ({reason}): give a folder")]


def _cached(name: str, environment: Mapping[str, str]) -> bool:
    home = environment.get("HF_HOME") or Path(environment.get("HOME", "/")) / ".cache" / "huggingface"
    hub = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub")
    return any((hub / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json"))


def version_findings(installed: Mapping[str, str], lock: Path = LOCK) -> list[Finding]:
    """Compare installed packages with the lock they were tested at; of `verl` no other version will do."""
    if not lock.is_file():
        return [warning("versions", f"no {lock.name} to compare with")]
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    findings = []
    for package, version in installed.items():
        pinned = pins.get(package)
        if pinned is None or version.split("+")[0] == pinned.split("+")[0]:
            continue
        text = f"{package} is {version}, {pinned} pinned"
        findings.append((bad if version == "absent" or package == "verl" else warning)("versions", text))
    return findings or [ok("versions", ", ".join(f"{name} {version}" for name, version in installed.items()))]
