"""What is watched during training, so that a run that learns nothing says so."""

from __future__ import annotations

import json
import logging
from collections import deque
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from reranker.training.validation import Validation

WINDOW = 50  # steps
AT_CHANCE = 0.02  # how near to chance the cross-entropy ratio counts as stuck
CONSTANT = 1e-4  # spread of a group's scores under which they are one
_log = logging.getLogger(__name__)


class Watch:
    """Sees every step's scores. Alarms, each once until it is over:

    `at_chance`: over 50 steps the groups' cross-entropy is not 2 % under ln(group size), what equal scores give.
    `constant_score`: for 50 steps, or in a validation, the passages of a query all get one score.
    `not_finite`: a loss that is no number.
    """

    def __init__(self, path: Path, quiet_steps: int = 0) -> None:
        """`quiet_steps`: of warm-up, in which a model may still be at chance."""
        self._path, self._quiet = path, quiet_steps
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._spreads: deque[float] = deque(maxlen=WINDOW)
        self._raised: set[str] = set()
        # A resumed run keeps what was said before.
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.alarms: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def step(self, number: int, loss: float, ratio: float, spread: float) -> None:
        self._ratios.append(ratio)
        self._spreads.append(spread)
        self._set("not_finite", loss != loss or abs(loss) == float("inf"), number, f"loss {loss}")
        if number < WINDOW + self._quiet or len(self._ratios) < WINDOW:
            return
        mean = sum(self._ratios) / WINDOW
        near = mean >= 1 - AT_CHANCE
        line = f"the cross-entropy of {WINDOW} steps is {mean:.3f} of ln(group size): the model tells nothing apart"
        self._set("at_chance", near, number, line)
        line = f"for {WINDOW} steps all passages of a query get one score"
        self._set("constant_score", max(self._spreads) < CONSTANT, number, line)

    def validated(self, number: int, constant: bool) -> None:
        line = "every query's validation passages get one score"
        self._set("constant_score", constant, number, line, of="validation")

    def _set(self, name: str, on: bool, number: int, line: str, of: str = "steps") -> None:
        key = f"{name} of {of}"
        if not on:
            self._raised.discard(key)
        elif key not in self._raised:
            self._raised.add(key)
            self.alarms.append({"alarm": name, "step": number, "line": line})
            _log.warning("alarm %s at step %d: %s", name, number, line)
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(self.alarms[-1], ensure_ascii=False) + "\n")


class WatchValidation(TrainerCallback):
    def __init__(self, watch: Watch, validation: Validation) -> None:
        self._watch, self._validation = watch, validation

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._validation.last is not None:
            self._watch.validated(state.global_step, self._validation.last.constant)


class StopAfter(TrainerCallback):
    """Ends the run at a step of the schedule, with a checkpoint, as if it were cut off there."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step >= self._step:
            control.should_save = True
            control.should_training_stop = True
        return control


class StepLog(TrainerCallback):
    """Appends what the trainer logs to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")
