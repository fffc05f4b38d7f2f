"""Keeps the best checkpoint of a run: `<output>/checkpoints/best`, whatever else verl removes.

    checkpoints/best -> step_N          a link, switched in one rename
    checkpoints/step_N/actor/           the policy's weights: hard links to verl's files, without the optimiser's state
    checkpoints/step_N/best.json        {"step", "metric", "value", "abstained", "config_sha256", "better_unsaved"}

The best is the saved step whose validation has the highest metric (`rewriter.keep_best`); of equals the earliest. A
step is a candidate once it is both saved and validated. `better_unsaved` names a better step that was not saved.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.checkpoints import holds_weights, saved_steps, step_folder
from reward.records.files import read_jsonl, write_json
from reward.records.run_files import VALIDATION_FILE
from reward.settings.recipe import RewriterSettings

FOLDER, BEST, BEST_FILE = "checkpoints", "best", "best.json"
# The optimiser's and the scheduler's state: a resume needs them, a merge does not.
_LEFT_OUT = ("optim_", "extra_state_")


@dataclass(frozen=True)
class Validation:
    """A validation that counts: enough of it could be scored, and it has the metric."""

    step: int
    value: float
    abstained: float


def keep_best(run: Path, settings: RewriterSettings, config_sha256: str) -> dict[str, Any] | None:
    """Compare the run's validations with the best so far, and keep a better saved one.

    Args:
        run: its output folder.
        config_sha256: of the run's record; goes into `best.json`.

    Returns:
        What `best.json` holds; None while there is no best.

    Raises:
        BadInput: a line of the validation metrics is no JSON object.
        OSError: the weights cannot be linked or copied.
    """
    validations = read_validations(run, settings)
    kept = read_best(run)
    candidates = {step for step in saved_steps(run) if holds_weights(step_folder(run, step))}
    if kept:
        candidates.add(kept["step"])
    saved = [validation for validation in validations if validation.step in candidates]
    if not saved:
        return kept
    best = max(saved, key=lambda validation: (validation.value, -validation.step))
    better = max(validations, key=lambda validation: (validation.value, -validation.step))
    record = {
        "step": best.step,
        "metric": settings.keep_best.metric,
        "value": best.value,
        "abstained": best.abstained,
        "config_sha256": config_sha256,
        "better_unsaved": {"step": better.step, "value": better.value} if better.value > best.value else None,
    }
    if kept and kept["step"] == best.step:
        if record != kept:
            write_json(run / FOLDER / BEST / BEST_FILE, record)
    else:
        _link_weights(run, best.step, record)
    return record


def read_validations(run: Path, settings: RewriterSettings) -> list[Validation]:
    """Return the validations of a run that count, in the order of their steps; of a repeated one the last."""
    if not (run / VALIDATION_FILE).is_file():
        return []
    name = metric_name(settings)
    found: dict[int, Validation] = {}
    for _, line in read_jsonl(run / VALIDATION_FILE):
        value, abstained = line.get(name), line["abstained"]
        found.pop(line["step"], None)
        if value is not None and math.isfinite(value) and abstained <= settings.keep_best.max_abstained:
            found[line["step"]] = Validation(line["step"], value, abstained)
    return [found[step] for step in sorted(found)]


def validated_steps(run: Path) -> set[int]:
    """Return the steps whose validation is on record, whether it counts or not."""
    if not (run / VALIDATION_FILE).is_file():
        return set()
    return {line["step"] for _, line in read_jsonl(run / VALIDATION_FILE)}


def metric_name(settings: RewriterSettings) -> str:
    """Return the name under which the validation logs the metric: that of the policy, where it has one."""
    metric = settings.keep_best.metric
    return metric if metric == "avg_reward" else f"{settings.reward.policy_label}_{metric}"


def read_best(run: Path) -> dict[str, Any] | None:
    """Return what is kept as best; None where nothing is."""
    try:
        best: dict[str, Any] = json.loads((run / FOLDER / BEST / BEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return best


def forget_best_after(run: Path, step: int) -> int | None:
    """Drop a best checkpoint of a step that a run will take again.

    Returns:
        The step of the best that was dropped; None where it stays.
    """
    kept = read_best(run)
    if kept is None or kept["step"] <= step:
        return None
    (run / FOLDER / BEST).unlink()
    _drop_all_but(run, None)
    return int(kept["step"])


def _link_weights(run: Path, step: int, record: dict[str, Any]) -> None:
    """Make `checkpoints/step_N` whole, then point `best` to it, then drop the one before."""
    whole = run / FOLDER / f"step_{step}"
    partial = whole.with_name(f".{whole.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = step_folder(run, step) / "actor"
    for path in source.rglob("*"):
        if path.is_file() and not path.name.startswith(_LEFT_OUT):
            target = partial / "actor" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:  # a file system without hard links
                shutil.copy2(path, target)
    write_json(partial / BEST_FILE, record)
    shutil.rmtree(whole, ignore_errors=True)  # a kill left it before `best` pointed to it
    partial.rename(whole)

    link = run / FOLDER / f".{BEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(whole.name)
    link.replace(run / FOLDER / BEST)
    _drop_all_but(run, whole.name)


def _drop_all_but(run: Path, kept: str | None) -> None:
    for pattern in ("step_*", ".step_*.partial"):
        for folder in (run / FOLDER).glob(pattern):
            if folder.name != kept:
                shutil.rmtree(folder, ignore_errors=True)
