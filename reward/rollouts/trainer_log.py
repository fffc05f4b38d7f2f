"""Log every step of a trainer once, also when a process is killed, and watch its health.

verl saves a step's checkpoint before it logs the step, and validates in between. A run that is killed there resumes
after the step and would never log it. So the step's metrics are in `<output>/logs/unlogged.json` from the end of its
update until every logger has them; the resumed run logs them first.

`validation_metrics.jsonl` grows by a line a validation: what `recipes.best_checkpoint` compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guard.private_files import keep_private
from reward.records.files import write_atomically
from reward.records.run_files import HEALTH_FILE, UNLOGGED_FILE, VALIDATION_FILE
from reward.rollouts.groups import outcome_metrics
from reward.rollouts.health import HealthMonitor, plain_names
from reward.settings.recipe import HealthSettings
from reward.task import Task


class TrainerLog:
    """Watch a trainer from its start on: verl computes a step's metrics after the sampler's turn and keeps none.

    Args:
        trainer: verl's; its methods `step`, `on_validate_begin`, `on_train_begin` and its logger's `log` are wrapped.
        output_dir: of the run.
        task: names the metrics of a validation.

    Attributes:
        sick: health warnings that have not been taken note of; they end the run where `rewriter.health.stop` says so.
    """

    def __init__(self, trainer: Any, output_dir: Path, settings: HealthSettings, task: Task):
        self._trainer, self._output_dir, self._task = trainer, output_dir, task
        self._unlogged_file = output_dir / UNLOGGED_FILE
        self._health = HealthMonitor(settings)
        self._stops_when_unhealthy = settings.stop
        self._log: Callable[..., Any] | None = None
        self._validated: list[Mapping[str, Any]] = []
        self._lost = 0
        self.sick: list[str] = []
        trainer.step = self._then_keep(trainer.step)
        # The trainer makes its logger between its own start and these two.
        trainer.on_validate_begin = self._after(self._watch_logger, trainer.on_validate_begin)
        trainer.on_train_begin = self._after(self._log_what_a_kill_left, trainer.on_train_begin)

    def validated(self, rollouts: Sequence[Mapping[str, Any]], lost: int = 0) -> None:
        """Take in rollouts of the validation under way.

        Args:
            rollouts: the flat fields of each, of abstained ones too.
            lost: how many others the trainer has lost: they count as abstained.
        """
        self._validated.extend(rollouts)
        self._lost += lost

    def _then_keep(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def step_then_keep(metrics: dict[str, Any], *rest: Any, **named: Any) -> Any:
            batch = step(metrics, *rest, **named)
            self._keep(self._trainer.global_steps, metrics)
            return batch

        return step_then_keep

    def _after(self, first: Callable[[], None], begin: Callable[[], Any]) -> Callable[[], Any]:
        def first_then_begin() -> Any:
            first()
            return begin()

        return first_then_begin

    def _watch_logger(self) -> None:
        if self._log is None:
            self._log = self._trainer.logger.log
            self._trainer.logger.log = self._check_and_log

    def _check_and_log(self, data: Mapping[str, Any], step: int, **rest: Any) -> None:
        assert self._log is not None
        self._check_health(step, data)

        # A validation that makes up for one that a kill prevented completes the step's metrics.
        metrics = {**self._unlogged(step), **data, **plain_names(data)}
        validation: dict[str, float] = {}
        if self._validated:
            asked = len(self._validated) + self._lost
            abstained = sum(r["abstained"] for r in self._validated) + self._lost
            validation = {**outcome_metrics(self._validated), **self._task.metrics(self._validated)}
            validation["abstained"] = abstained / asked
            metrics |= {f"validation/{name}": value for name, value in validation.items()}

        # In this order: what is on record as validated will be logged, now or after a kill.
        self._keep(step, metrics)
        if validation:
            self._append(VALIDATION_FILE, {"step": step, "rollouts": asked, **validation})
            self._validated, self._lost = [], 0
        self._log(data=metrics, step=step, **rest)
        self._unlogged_file.unlink(missing_ok=True)

    def _check_health(self, step: int, metrics: Mapping[str, Any]) -> None:
        for warning in self._health.record(metrics):
            print(f"warning: step {step}: {warning}", flush=True)
            self._append(HEALTH_FILE, {"step": step, "rule": warning.name, "message": str(warning)})
            if self._stops_when_unhealthy:
                self.sick.append(str(warning))

    def _keep(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._unlogged_file.parent.mkdir(parents=True, exist_ok=True)
        numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        write_atomically(self._unlogged_file, [json.dumps({"step": step, "data": numbers})])

    def _unlogged(self, step: int) -> dict[str, float]:
        """Return what is kept of `step`; empty where another step's metrics are kept, or none."""
        if not self._unlogged_file.is_file():
            return {}
        kept = json.loads(self._unlogged_file.read_text(encoding="utf-8"))
        return kept["data"] if kept["step"] == step else {}

    def _log_what_a_kill_left(self) -> None:
        """Log the step after which this run resumes, where the run before it was killed between save and log."""
        self._watch_logger()
        resumed = self._trainer.global_steps - 1
        if unlogged := self._unlogged(resumed):
            self._check_and_log(unlogged, step=resumed)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with open(self._output_dir / name, "a", encoding="utf-8", opener=keep_private) as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
