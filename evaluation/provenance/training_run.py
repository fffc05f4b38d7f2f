"""The training run that a model comes from: its folder, its judge, its retriever."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward.records.files import BadInput
from reward.records.run_files import RETRIEVER_FILE
from reward.rollouts.reranker_pin import PIN_FILE
from reward.settings.recorded_run import RecordedServices, load_recorded_services

_PARENTS = 4  # outputs/rl/<tenant>/global_step_40/actor is the deepest folder that is ever given
_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")  # of a provider's snapshot of a model


@dataclass(frozen=True)
class TrainingRun:
    """What a run's folder records.

    Args:
        reranker: the one pinned where no relevant passage was known, else "".
        before: the run that made the model it began with.
        indices: of the knowledge bases that it met, in order; None where the service did not describe its.
    """

    folder: Path
    services: RecordedServices
    reranker: str
    before: TrainingRun | None
    indices: Sequence[Mapping[str, Any] | None] = ()

    @property
    def with_retriever(self) -> TrainingRun | None:
        """The last run, this one or one before it, whose reward asked a retriever; None where none did."""
        return self if self.services.asks_retriever else self.before.with_retriever if self.before else None

    @property
    def judges(self) -> list[str]:
        """The models that judged it and the runs before it."""
        own = [self.services.judge_model] if self.services.judge_model else []
        return own + (self.before.judges if self.before else [])

    @property
    def judge(self) -> str:
        """Judge and version, those of the runs before it too; "none" where no judge took part."""
        services = self.services
        own = f"{services.judge_model}@{services.judge_version}".rstrip("@")
        earlier = self.before.judge if self.before else "none"
        return ", ".join(dict.fromkeys(name for name in (own, earlier) if name and name != "none")) or "none"


def find_training_run(model: Path, *, depth: int = 5) -> TrainingRun | None:
    """Find the run that a model folder or checkpoint lies in, or was merged from; None where no recipe is recorded.

    Args:
        depth: so many runs, one begun with the model of the other, are followed.
    """
    for folder in _folders_above(model):
        try:
            services = load_recorded_services(folder)
        except BadInput:  # a damaged record tells nothing, as none does
            continue
        if services is not None:
            start = Path(services.start_from) if services.start_from else None
            before = find_training_run(start, depth=depth - 1) if start and start.is_dir() and depth > 1 else None
            if before and before.folder == folder:
                before = None
            return TrainingRun(folder, services, _pinned(folder / PIN_FILE), before, _met(folder / RETRIEVER_FILE))
    return None


def trained_by(judge: str, runs: Mapping[str, TrainingRun | None]) -> list[str]:
    """Return the models whose training a judge took part in.

    Args:
        judge: its model.
        runs: model -> the run that it comes from.
    """
    return [name for name, run in runs.items() if run and any(same_model(judge, other) for other in run.judges)]


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


def _met(file: Path) -> list[Mapping[str, Any] | None]:
    """Read the indices that a run met; a damaged file tells nothing, as none does."""
    try:
        met = [entry["index"] for entry in json.loads(file.read_text(encoding="utf-8"))["retrievers"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [index if isinstance(index, Mapping) else None for index in met]
