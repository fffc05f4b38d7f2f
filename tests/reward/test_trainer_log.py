"""What stands between the trainer and its loggers, over kills at every point between a step and its log."""

import json
from pathlib import Path

import pytest

from reward.engine import flat_fields
from reward.records.outcome import Abstained, AbstainReason, Parts, Rollout, Scored
from reward.records.sample import Metadata, Sample
from reward.rollouts.trainer_log import TrainerLog
from reward.scorer import Scoring
from reward.settings.recipe import HealthSettings, RewardSettings
from reward.task import make_task
from reward.text.terms import NO_TERMS

TASK = make_task("rewrite", RewardSettings(), lambda sample: NO_TERMS, has_judge=False)
PARTS = Parts(retrieval=0.1, policy_top1=0.5, baseline_top1=0.4, weight_retrieval=1, versus_baseline=0.1)


class Killed(Exception):
    """Ends a start of the trainer at one point."""


class Logger:
    """verl's `Tracking`, as far as it is used."""

    def __init__(self, lines: list):
        self.lines = lines

    def log(self, data: dict, step: int) -> None:
        self.lines.append((step, {name: value for name, value in data.items() if name in ("loss", "val-core/reward")}))


class Trainer:
    """Takes its steps in verl's order: update, save, validate, log. `killed` names a point, e.g. `save 3`."""

    def __init__(self, run: Path, lines: list, killed: str = "", *, validates: bool = True):
        self._run, self._lines, self._killed, self._validates = run, lines, killed, validates
        self.watch = TrainerLog(self, run, HealthSettings(), TASK)

    def _reach(self, point: str) -> None:
        if f"{point} {self.global_steps}" == self._killed:
            raise Killed

    def step(self, metrics: dict) -> None:
        metrics["loss"] = 1 / self.global_steps

    def on_validate_begin(self) -> None: ...

    def on_train_begin(self) -> None: ...

    def _validate(self) -> dict:
        self.on_validate_begin()
        self._reach("validate")
        self.watch.validated([rollout(0.5), rollout(0.1)])
        return {"val-core/reward": 0.3}

    def fit(self, last: int) -> None:
        saved = self._run / "saved"
        self.global_steps = int(saved.read_text()) if saved.is_file() else 0
        self.logger = Logger(self._lines)
        if self._validates and self.global_steps:  # as recipes.launch decides
            recorded = self._run / "validation_metrics.jsonl"
            lines = recorded.read_text().splitlines() if recorded.is_file() else []
            if self.global_steps not in [json.loads(line)["step"] for line in lines]:
                metrics = self._validate()
                self.logger.log(data=metrics, step=self.global_steps)
        self.global_steps += 1
        self.on_train_begin()
        while self.global_steps <= last:
            metrics: dict = {}
            self.step(metrics)
            self._reach("step")
            saved.write_text(str(self.global_steps))
            self._reach("save")
            if self._validates:
                metrics |= self._validate()
            self._reach("log")
            self.logger.log(data=metrics, step=self.global_steps)
            self._reach("logged")
            self.global_steps += 1


def rollout(score: float, abstained: bool = False) -> dict:
    sample = Sample(sample_id="t_1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"))
    outcome = Abstained(reason=AbstainReason.RAG, detail="") if abstained else Scored(reward=score, parts=PARTS)
    scored = Rollout(step=1, time=10.0, sample=sample, completion="鱼油 用法", outcome=outcome)
    return flat_fields(Scoring(scored, (), started=9.0, ended=10.0), TASK)


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("point", ["step", "save", "validate", "log", "logged"])
def test_a_step_is_logged_once_wherever_the_run_is_killed(tmp_path, point, validates):
    lines: list = []
    if validates or point != "validate":
        with pytest.raises(Killed):
            Trainer(tmp_path, lines, f"{point} 3", validates=validates).fit(5)
    Trainer(tmp_path, lines, validates=validates).fit(5)
    expected = {"val-core/reward": 0.3} if validates else {}
    assert lines == [(step, {"loss": 1 / step, **expected}) for step in range(1, 6)]
    assert not (tmp_path / "logs/unlogged.json").exists()


def test_two_kills_in_a_row_and_one_at_the_last_step(tmp_path):
    lines: list = []
    for killed in ("save 2", "validate 2", "save 4", "log 5"):
        with pytest.raises(Killed):
            Trainer(tmp_path, lines, killed).fit(5)
    Trainer(tmp_path, lines).fit(5)
    assert [step for step, _ in lines] == [1, 2, 3, 4, 5]
    assert all(data["loss"] == 1 / step and "val-core/reward" in data for step, data in lines)


def test_the_last_step_is_logged_though_nothing_is_left_to_train(tmp_path):
    lines: list = []
    with pytest.raises(Killed):
        Trainer(tmp_path, lines, "save 2", validates=False).fit(2)
    Trainer(tmp_path, lines, validates=False).fit(2)
    assert lines == [(1, {"loss": 1.0}), (2, {"loss": 0.5})]


def test_a_validation_is_recorded_with_what_could_not_be_scored(tmp_path):
    trainer = Trainer(tmp_path, [])
    trainer.global_steps, trainer.logger = 1, Logger([])
    trainer.on_validate_begin()
    trainer.watch.validated([rollout(0.5), rollout(0.1), rollout(0.0, abstained=True)], lost=1)
    trainer.logger.log(data={"val-core/reward": 0.3}, step=7)
    trainer.logger.log(data={}, step=8)
    (line,) = map(json.loads, (tmp_path / "validation_metrics.jsonl").read_text().splitlines())
    assert (line["step"], line["rollouts"], line["abstained"]) == (7, 4, 0.5)
    assert line["avg_reward"] == pytest.approx(0.3) and "8b_win_rate" in line


def test_the_loggers_get_plain_names_and_the_validation(tmp_path):
    trainer = Trainer(tmp_path, [])
    got: dict = {}
    trainer.global_steps, trainer.logger = 1, Logger([])
    trainer.logger.log = lambda data, step: got.update(data)
    trainer.on_train_begin()
    trainer.watch.validated([rollout(0.5)])
    trainer.logger.log(data={"actor/pg_loss": 0.1}, step=1)
    assert got["policy_loss"] == 0.1 and got["validation/avg_reward"] == 0.5 and got["validation/abstained"] == 0


def test_a_broken_rule_is_written_down_and_ends_the_run_only_where_it_should(tmp_path):
    for stop, sick in ((False, 0), (True, 1)):
        (tmp_path / str(stop)).mkdir()
        trainer = Trainer(tmp_path / str(stop), [])
        trainer.watch = TrainerLog(trainer, tmp_path / str(stop), HealthSettings(stop=stop), TASK)
        trainer.global_steps, trainer.logger = 1, Logger([])
        trainer.on_train_begin()
        trainer.logger.log(data={"actor/grad_norm": float("nan")}, step=1)
        assert len(trainer.watch.sick) == sick
        assert "grad_norm" in (tmp_path / str(stop) / "health.jsonl").read_text()
