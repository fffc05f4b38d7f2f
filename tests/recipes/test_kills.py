"""A training run is killed at random moments and started again: it ends as if nothing had happened.

One kill of the trainer in `tests/run.sh --all`; KILLS=20 KILL_SEED=1 for twenty of all four kinds in turn: the trainer,
the reward worker, the retrieval service, Ray's head. Each prints a line: what was killed, when, and what came of it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import zlib
from collections import Counter
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.launch import RECIPE_FILE
from reward.rollouts.rollout_log import read_rollouts
from tests.support import ROOT
from tests.support.commands import run_python
from tests.support.loopback_judge import LoopbackJudge
from tests.support.training import Setting, judged_by, logged_steps

KILLS, SEED = int(os.environ.get("KILLS", "1")), int(os.environ.get("KILL_SEED", "0"))
KINDS = {
    "trainer": ("recipes.launch", "verl.trainer.main_ppo", "ray::TaskRunnerV1", "ray::WorkerDict"),
    "reward worker": ("ray::RewardLoopWorker",),
    "service": (),
    "head": ("gcs_server", "raylet/raylet"),
}
STEPS, EVERY, ROLLOUTS = 4 + 3 * KILLS, 2, 4  # a step's rollouts: two prompts, two each
SECONDS = 400.0  # until a start or an end counts as hung
SURVIVED = 5.0  # seconds after which a run that goes on has survived
RECORDING = 0.5  # seconds within which an answer may be on its way into the ledger


class TimedJudge(LoopbackJudge):
    """Keeps when each call began and ended."""

    def __init__(self) -> None:
        super().__init__(grade=lambda rewrite: 2 + zlib.crc32(rewrite.encode()) % 4)
        self.ended: list[tuple[float, str]] = []

    def answer(self, body: dict, fault: str):
        self.ended.append((time.time(), json.dumps(body["messages"], ensure_ascii=False)))
        return super().answer(body, fault)


class Run:
    """One run in its folder, from start to start."""

    def __init__(self, setting: Setting, output: Path, command: list[str]):
        self.setting, self.output, self._command = setting, output, command
        self.killed_at: list[float] = []
        self.steps_lost = 0
        self._start()

    def _start(self) -> None:
        # What goes on without a part of Ray's head, or went on without its service, may still end: exit code 75.
        self._wounded, self._started_at = False, time.time()
        with self.output.with_suffix(".log").open("a") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def steps(self) -> int:
        """Return the last step that was begun, 0 before the first."""
        file = self.output / "reward_metrics.jsonl"
        return logged_steps(self.output)[-1]["step"] if file.is_file() and file.stat().st_size else 0

    def saved(self) -> int:
        file = self.output / "latest_checkpointed_iteration.txt"
        return int(file.read_text() or 0) if file.is_file() else 0

    def await_step(self, step: int) -> None:
        """Wait until this start has begun the step; until it has cut its logs, they show the steps of the last one."""
        deadline = time.monotonic() + SECONDS
        while not self._has_prepared() or self.steps() < step:
            self._resume_if_ended()
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.02)

    def _resume_if_ended(self) -> None:
        if self._process.poll() is not None:
            assert self._wounded, self.tail()
            print(f"wounded, it ended with exit code {self._process.returncode} and is started again", flush=True)
            self.steps_lost += self.steps() - self.saved()
            self._start()

    def kill(self, kind: str, name: str | None) -> str:
        """Kill one process (None: the service) and, unless the run goes on, start it again. Says what came of it."""
        victims = self._find(name) if name else []
        family = self._family()
        step, self.killed_at = self.steps(), [*self.killed_at, time.time()]
        if name is None:
            self.setting.service.kill()
        for process in victims:
            process.kill()
        survived = self._survives()
        if name is None:
            self.setting.service.start()
        if survived:
            self._wounded = kind in ("head", "service")
            return f"{kind} ({name}) at step {step}: the run went on"
        code = self._process.returncode
        # Nothing of the trainer is left: it would go on writing, or hold a GPU.
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left, [_words(process) for process in left]
        saved = self.saved()
        self.steps_lost += step - saved
        self._start()
        return f"{kind} ({name}) at step {step}: exit code {code}, resumes after step {saved}"

    def _find(self, name: str) -> list[psutil.Process]:
        """The run's processes of that name; a wounded run that is about to end is started again first."""
        while not (found := [process for process in self._family() if name in _words(process)]):
            assert self._wounded, self.tail()
            self._process.wait(SECONDS)
            self._resume_if_ended()
            self.await_step(self.saved() + 1)
        return found

    def finish(self) -> None:
        while self._process.wait(SECONDS) != 0:
            self._resume_if_ended()

    def tail(self) -> str:
        return self.output.with_suffix(".log").read_text(errors="replace")[-3000:]

    def _has_prepared(self) -> bool:
        recipe = self.output / RECIPE_FILE
        return recipe.is_file() and recipe.stat().st_mtime > self._started_at

    def _family(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        launcher = psutil.Process(self._process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def _survives(self) -> bool:
        """Wait for the end of the run; whether it takes further steps instead."""
        began, deadline = self.steps(), time.monotonic() + SURVIVED
        while self._process.poll() is None:
            if time.monotonic() > deadline and self.steps() > began + 1:
                return True
            assert time.monotonic() < deadline + SECONDS, self.tail()
            time.sleep(0.1)
        return False


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


@pytest.fixture
def judge():
    server = TimedJudge()
    server.delay = 0.02
    yield server
    server.close()


def file_log(output: Path) -> list[dict]:
    files = sorted((output / "logs/metrics").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.full
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(setting, judge):
    output = setting.folder / "killed"
    command = setting.command(
        "fivedoctors_grpo",
        f"recipe.output_dir={output}",
        f"recipe.start_from={setting.folder / 'tiny'}",
        f"trainer.total_training_steps={STEPS}",
        f"trainer.save_freq={EVERY}",
        "trainer.test_freq=1",
        "trainer.logger=[console,file,tensorboard]",
        "recipe.rl.prompts_per_step=2",
        "recipe.rl.prompts_per_update=2",
        "recipe.rl.group_size=2",
        "recipe.rl.micro_batch=4",
        "recipe.rl.max_new_tokens=8",
        "rewriter.judge.baseline_votes=1",
        *judged_by(judge),
    )
    chance = random.Random(SEED)
    run, floor = Run(setting, output, command), 0
    for number in range(KILLS):
        kind = list(KINDS)[number % len(KINDS)]
        floor = max(floor, run.saved())
        run.await_step(min(floor + chance.randint(1, 3), STEPS - 1))
        time.sleep(chance.uniform(0, 1.5))
        print(run.kill(kind, chance.choice(KINDS[kind]) if KINDS[kind] else None), flush=True)
    run.finish()

    # As many steps as without a kill, each once in every log.
    every_step = list(range(1, STEPS + 1))
    assert [row["step"] for row in logged_steps(output)] == every_step
    lines = file_log(output)
    assert [line["step"] for line in lines] == every_step
    for line in lines:
        assert {"avg_reward", "actor/grad_norm", "validation/avg_reward"} <= set(line["data"]), line["step"]
    validations = [json.loads(line) for line in (output / "validation_metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in validations] == every_step
    events = EventAccumulator(str(output / "logs/tensorboard")).Reload()
    for name in ("avg_reward", "actor/grad_norm", "validation/avg_reward"):
        assert [event.step for event in events.Scalars(name)] == every_step, name

    # Every rollout is on record, and scored again from the record it earns the same.
    rollouts = [r for r in read_rollouts(output) if r.sample.metadata.split == "train"]
    assert Counter(r.step for r in rollouts) == dict.fromkeys(every_step, ROLLOUTS)
    replay = run_python("-m", "reward.replay", "--run", str(output))
    assert replay.returncode == 0, replay.stderr

    # What was answered is not asked again; of a call that a kill cut off nobody knows the answer.
    calls: dict[str, list[float]] = {}
    for moment, text in judge.ended:
        calls.setdefault(text, []).append(moment)
    again = [moments for moments in calls.values() if len(moments) > 1]
    cut_off = [m for m in again if all(any(abs(k - at) < RECORDING for k in run.killed_at) for at in m[:-1])]
    print(
        f"{KILLS} kills, {run.steps_lost} steps taken again, {len(judge.ended)} judge calls, "
        f"{len(again) - len(cut_off)} answered calls repeated, {len(cut_off)} cut off and repeated"
    )
    assert len(again) == len(cut_off)

    # The best of the saved steps is kept and merged.
    best = json.loads((output / "checkpoints/best/best.json").read_text())
    counting = {line["step"]: line["avg_reward"] for line in validations if line["abstained"] <= 0.05}
    assert best["value"] == pytest.approx(counting[best["step"]])
    # A run that stopped itself has saved a step between.
    assert best["value"] >= max(value for step, value in counting.items() if step % EVERY == 0)
    provenance = json.loads((output / "final/provenance.json").read_text())
    assert provenance["checkpoint"].endswith(f"checkpoints/step_{best['step']}/actor")
    # As many checkpoints as without a kill.
    assert len(list(output.glob("global_step_*/actor"))) == 2


@pytest.mark.slow
def test_distillation_killed_at_random_moments_takes_whole_epochs(setting):
    output, epochs = setting.folder / "sft_killed", 4
    command = setting.command(
        "fivedoctors_sft",
        f"recipe.output_dir={output}",
        "recipe.sft.batch=8",
        "recipe.sft.micro_batch=8",
        f"recipe.sft.epochs={epochs}",
        "trainer.logger=[console,file]",
    )
    chance = random.Random(SEED)
    for _ in range(KILLS):
        began, steps = time.time(), chance.randint(1, 12)
        with output.with_suffix(".log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None and output.with_suffix(".log").read_text().count("train/loss:") < steps:
            assert time.time() < began + SECONDS
            time.sleep(0.05)
        if process.poll() == 0:
            break  # trained to its end before its turn came
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        name = chance.choice(("recipes.launch", "torch.distributed.run", "verl.trainer.sft_trainer"))
        for victim in family:
            if name in _words(victim):
                victim.kill()
        process.wait(SECONDS)
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left, [_words(one) for one in left]
        print(f"{name} killed after {steps} steps", flush=True)
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    trained = [line["step"] for line in file_log(output) if "train/loss" in line["data"]]
    assert trained == list(range(1, trained[-1] + 1)) and trained[-1] % epochs == 0
