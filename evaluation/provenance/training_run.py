"""The training run that a model comes from: its folder, its judge, its retriever."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reward.rollouts.reranker_pin import PIN_FILE
from reward.settings.recorded_run import COMPOSED, RecordedServices, load_recorded_services

_PARENTS = 4  # outputs/rl/<tenant>/global_step_40/actor is the deepest folder that is ever given
_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")  # of a provider's snapshot of a model


@dataclass(frozen=True)
class TrainingRun:
    """What a run's folder records. `reranker`: the one pinned where no relevant passage was known, else ""."""

    folder: Path
    services: RecordedServices
    reranker: str

    @property
    def judge(self) -> str:
        """The judge's model and version, "none" where no judge took part."""
        services = self.services
        if not services.judge_model:
            return "none"
        return f"{services.judge_model}@{services.judge_version}" if services.judge_version else services.judge_model


def find_training_run(model: Path) -> TrainingRun | None:
    """Find the run that a model folder or checkpoint lies in, or was merged from; None where no recipe is recorded.

    Raises:
        BadInput: the recipe cannot be read.
    """
    for folder in _folders_above(model):
        if (folder / COMPOSED).is_file():
            services = load_recorded_services(folder)
            assert services is not None
            return TrainingRun(folder, services, _pinned(folder / PIN_FILE))
    return None


def trained_by(judge: str, runs: Mapping[str, TrainingRun | None]) -> list[str]:
    """Return the models whose training a judge took part in.

    Args:
        judge: its model.
        runs: model -> the run that it comes from.
    """
    judged = {name: run for name, run in runs.items() if run and run.services.judge_model}
    return [name for name, run in judged.items() if same_model(judge, run.services.judge_model)]


def same_model(one: str, other: str) -> bool:
    """Say whether two names mean one model: case, a provider's prefix and the date of a snapshot aside."""
    return _plain(one) == _plain(other)


def _plain(model: str) -> str:
    return _DATE.sub("", model.strip().casefold().rpartition("/")[2])


def _folders_above(model: Path) -> list[Path]:
    starts = [model.resolve()]
    # A merged folder names its checkpoint.
    try:
        merged_from = json.loads((model / "provenance.json").read_text(encoding="utf-8")).get("checkpoint")
    except (OSError, ValueError, AttributeError):
        merged_from = None
    if isinstance(merged_from, str):
        starts.append(Path(merged_from).resolve())
    return [folder for start in starts for folder in (start, *list(start.parents)[:_PARENTS])]


def _pinned(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["reranker"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
