"""verl's own trainers on a CPU: every algorithm, against a live retrieval service, started as a user starts them.

GRPO with a judge runs in every test run; the other algorithms under the marker `full`; every shipped recipe, and a
service that dies and comes back in mid-training, under the marker `slow`.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import zlib
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from fastapi import FastAPI, Request, Response

from data_prep.build_rl import SCHEMA
from data_prep.dataset.artefacts import writing_parquet
from examples.prepare_expansion import rl_rows
from recipes.compose import CONFIG_DIR
from reward.records.outcome import Abstained
from reward.records.sample import Sample
from reward.rollouts.rollout_log import read_rollouts
from tests.support import ROOT
from tests.support.asgi_server import AsgiServer
from tests.support.commands import run_command, run_python
from tests.support.loopback_judge import LoopbackJudge
from tests.support.training import Setting, judged_by, logged_steps, python

RL_RECIPES = sorted(p.stem for p in CONFIG_DIR.parent.glob("*_*.sh") if not p.stem.endswith("_sft"))


@pytest.fixture
def judge():
    """Grades anything between 2 and 5, the same text always the same."""
    server = LoopbackJudge(grade=lambda rewrite: 2 + zlib.crc32(rewrite.encode()) % 4)
    yield server
    server.close()


CHECKED = 2 * 3  # the preflight has two baselines graded, by three votes each


def recorded_calls(output: Path, kind: str) -> int:
    with sqlite3.connect(output / "ledger.sqlite") as ledger:
        return ledger.execute("SELECT count(*) FROM calls WHERE kind = ?", (kind,)).fetchone()[0]


def assert_trained(output: Path, result: subprocess.CompletedProcess, steps: int, checked: int = 0) -> None:
    """Hold a run's records to one another. `checked`: calls to the judge that the preflight made and recorded."""
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    logged = logged_steps(output)
    assert [row["step"] for row in logged] == list(range(1, steps + 1))
    for row in logged:
        assert -1 <= row["avg_reward"] <= 1 and row["abstained"] == 0
        assert row["reward_wait_seconds"] > 0
    # The calls that the steps report are those that the ledger recorded.
    assert sum(row["rag_api_calls"] for row in logged) == recorded_calls(output, "rag") > 0
    assert sum(row["judge_api_calls"] for row in logged) + checked == recorded_calls(output, "judge")
    # Every rollout is on record, and scored again from the record it earns the same.
    rollouts = list(read_rollouts(output))
    assert {rollout.step for rollout in rollouts} == set(range(1, steps + 1))
    for row in logged:
        rewards = [rollout.outcome.reward for rollout in rollouts if rollout.step == row["step"]]
        assert sum(rewards) / len(rewards) == pytest.approx(row["avg_reward"])
    replay = run_python("-m", "reward.replay", "--run", str(output))
    assert replay.returncode == 0, replay.stderr
    assert (output / "final" / "config.json").is_file()
    # The dashboards' names reach verl's own logger.
    assert ("8b_win_rate" in result.stdout) == any("8b_win_rate" in row for row in logged)
    assert "avg_reward" in result.stdout and "actor/grad_norm" in result.stdout
    assert " policy_loss:" in result.stdout and " clip_fraction:" in result.stdout


def read_extra_info(path: Path) -> list[dict]:
    return pq.read_table(path, columns=["extra_info"])["extra_info"].to_pylist()


def assert_judged(output: Path, judge: LoopbackJudge) -> None:
    logged = logged_steps(output)
    assert all(0 < row["weight_judge"] < 1 and 1 <= row["8b_judge_score"] <= 5 for row in logged)
    assert sum(row["judge_api_calls"] for row in logged) + CHECKED == len(judge.requests)
    assert logged[0]["judge_input_tokens"] > 0


def test_two_steps_of_grpo_with_a_judge(setting, judge):
    output = setting.folder / "grpo_with_a_judge"
    _, result = setting.train_rl("fivedoctors_grpo", 2, f"recipe.output_dir={output}", *judged_by(judge))
    assert_trained(output, result, steps=2, checked=CHECKED)
    assert_judged(output, judge)
    # What promotion holds the model to: the retriever was one and the same from beginning to end.
    [met] = json.loads((output / "retriever.json").read_text())["retrievers"]
    assert met["index"]["documents"] > 0 and met["index"]["created_at"] and met["from_step"] == 0


@pytest.mark.full
def test_two_steps_of_sft(setting):
    output = setting.folder / "sft"
    overrides = (
        f"recipe.output_dir={output}",
        "recipe.sft.batch=16",
        "recipe.sft.micro_batch=16",
        "recipe.sft.epochs=1",
        # As on GPUs: a frozen base in bf16, and the merge has to fold the adapter in.
        "recipe.sft.lora_rank=8",
        "recipe.sft.weights=bf16",
        "recipe.machine.dtype=bfloat16",
        "recipe.machine.mixed_precision=null",
    )
    result = run_command(*setting.command("fivedoctors_sft", *overrides, "trainer.total_training_steps=2"))
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert "train/loss" in result.stdout
    assert (output / "final" / "config.json").is_file()


@pytest.mark.slow
def test_three_steps_of_rloo(setting):
    # A limit that any step breaks: the health rules see what the trainer logs.
    limits = ("rewriter.health.kl=1e-12", "rewriter.health.window=2", "rewriter.reward.gates=[empty]")
    output, result = setting.train_rl("fivedoctors_rloo", 3, *limits)
    assert_trained(output, result, steps=3)
    assert "warning: step 3: " in result.stdout and "kl" in (output / "health.jsonl").read_text()
    assert all(row["weight_judge"] == 0 and row["judge_api_calls"] == 0 for row in logged_steps(output))


@pytest.mark.full
def test_two_steps_of_expansion(setting):
    # The same queries, as prompts of typed lines.
    data = setting.folder / "expansion"
    data.mkdir()
    for split in ("train", "val"):
        rows = read_extra_info(setting.folder / "prepared" / f"rl_{split}.parquet")
        with writing_parquet(data / f"rl_{split}.parquet", SCHEMA) as write:
            for row in rl_rows([Sample.from_extra_info(row) for row in rows]):
                write(row)
    output = setting.folder / "expansion_grpo"
    overrides = ("--config-name=expansion_grpo", f"tenant={setting.tenant}", "train=full", f"recipe.data_dir={data}")
    _, result = setting.train_rl("run", 2, *overrides, f"recipe.output_dir={output}")
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    logged = logged_steps(output)
    assert [row["step"] for row in logged] == [1, 2]
    assert all(0 <= row["valid_share"] <= 1 and row["abstained"] == 0 for row in logged)
    assert len(list(read_rollouts(output))) == 2 * 4 * 4
    replay = run_python("-m", "reward.replay", "--run", str(output))
    assert replay.returncode == 0, replay.stderr
    assert (output / "final" / "config.json").is_file()


class LossyRelay:
    """Passes retrievals on to `url`, and answers 503 to those of some queries."""

    def __init__(self, url: str, lost: set[str]):
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request) -> Response:
            body = await request.json()
            if body["query"] in lost:
                return Response(status_code=503)
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                answer = await client.post(f"{url}/api/chat/general_rag", json=body)
            return Response(answer.content, answer.status_code, media_type="application/json")

        self._server = AsgiServer(app)
        self.url, self.close = self._server.url, self._server.close


@pytest.mark.full
def test_an_abstained_validation_sample_is_no_zero_in_the_mean(setting):
    validated = [Sample.from_extra_info(row) for row in read_extra_info(setting.folder / "prepared" / "rl_val.parquet")]
    lost = {sample.original_query for sample in validated[: len(validated) // 2]}
    assert 0 < len(lost) < len({sample.original_query for sample in validated})
    relay = LossyRelay(setting.service.url, lost)
    output = setting.folder / "lossy_validation"
    # Every rewrite is gated (the floor is -1), or scored: a rewrite of a lost query that passes the gates abstains.
    overrides = ("rewriter.reward.gates=[empty]", "trainer.test_freq=1", f"recipe.output_dir={output}")
    try:
        _, result = setting.train_rl("fivedoctors_grpo", 1, *overrides, f"rewriter.tenant.rag.url={relay.url}")
    finally:
        relay.close()
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    rollouts = [rollout for rollout in read_rollouts(output) if rollout.sample.metadata.split == "val"]
    rewards = [r.outcome.reward for r in rollouts if not isinstance(r.outcome, Abstained)]
    assert 0 < len(rewards) < len(rollouts)
    logged = {
        name: float(value) for name, value in re.findall(r"(val\S+?):(?:np\.float64\()?(-?[\d.e-]+)", result.stdout)
    }
    (mean,) = (value for name, value in logged.items() if name.startswith("val-core") and "/reward/mean@" in name)
    assert mean == pytest.approx(sum(rewards) / len(rewards), abs=2e-3)
    assert logged["validation/abstained"] == pytest.approx(1 - len(rewards) / len(rollouts), abs=1e-3)


@pytest.mark.full
def test_two_steps_of_ppo_with_critic_and_judge(setting, judge):
    output, result = setting.train_rl(
        "fivedoctors_ppo",
        2,
        "trainer.critic_warmup=0",
        "recipe.rl.prompts_per_step=16",
        "recipe.rl.prompts_per_update=16",
        *judged_by(judge),
        "rewriter.ledger.run.calls=5000",
    )
    assert_trained(output, result, steps=2, checked=CHECKED)
    assert "critic/vf_loss" in result.stdout and " value_loss:" in result.stdout
    assert_judged(output, judge)


@pytest.mark.slow
def test_ten_epochs_with_two_checkpoints_kept_leave_two_links_that_merge(setting):
    output = setting.folder / "ten_epochs"
    overrides = (
        f"recipe.output_dir={output}",
        "recipe.rl.epochs=10",
        "recipe.rl.save_every_epochs=2",
        "recipe.rl.prompts_per_step=32",
        "recipe.rl.prompts_per_update=32",
        "recipe.rl.group_size=2",
    )
    _, result = setting.train_rl("fivedoctors_grpo", "null", *overrides)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    saved = yaml.safe_load((output / "recipe.yaml").read_text())["trainer"]["save_freq"]
    links = {path.name: path for path in output.glob("checkpoint_epoch*")}
    assert set(links) == {"checkpoint_epoch8", "checkpoint_epoch10"}
    assert os.readlink(links["checkpoint_epoch8"]) == f"global_step_{4 * saved}"
    for name, link in links.items():
        python("export.merge", "--checkpoint", str(link), "--out", str(setting.folder / name))
        assert (setting.folder / name / "config.json").is_file()


@pytest.mark.slow
def test_sft_killed_after_its_first_epoch_takes_as_many_steps_as_unbroken(setting):
    def command(folder: str) -> list[str]:
        sizes = ("recipe.sft.batch=16", "recipe.sft.micro_batch=16", "recipe.sft.epochs=2")
        return setting.command("fivedoctors_sft", f"recipe.output_dir={setting.folder / folder}", *sizes)

    def steps(output: str) -> list[int]:
        lines = [line for line in output.splitlines() if "train/loss" in line]
        return [int(line.partition("step:")[2].split()[0]) for line in lines]

    unbroken = run_command(*command("unbroken"))
    assert unbroken.returncode == 0, (unbroken.stdout + unbroken.stderr)[-3000:]
    all_steps = steps(unbroken.stdout)
    epoch = len(all_steps) // 2
    assert all_steps == list(range(1, 2 * epoch + 1)) and epoch > 1

    # Killed as soon as the first epoch's checkpoint is complete.
    process = subprocess.Popen(command("killed"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("Updated checkpoint tracker" in line for line in process.stdout)
    process.terminate()
    process.stdout.read()
    assert process.wait(timeout=60) == 130

    resumed = run_command(*command("killed"))
    assert resumed.returncode == 0, (resumed.stdout + resumed.stderr)[-3000:]
    assert steps(resumed.stdout) == all_steps[epoch:]


@pytest.mark.slow
def test_a_spent_budget_stops_the_run_and_a_raised_one_resumes_it(setting, judge):
    overrides = [*judged_by(judge), f"recipe.output_dir={setting.folder / 'budget'}"]
    output, stopped = setting.train_rl("fivedoctors_grpo", 3, *overrides, "rewriter.ledger.run.calls=60")
    output = setting.folder / "budget"
    assert stopped.returncode == 76, (stopped.stdout + stopped.stderr)[-3000:]
    assert json.loads((output / "stopped.json").read_text())["reason"] == "budget_spent"
    paid = len(judge.requests)
    assert paid <= 60
    _, resumed = setting.train_rl("fivedoctors_grpo", 3, *overrides)
    assert resumed.returncode == 0, (resumed.stdout + resumed.stderr)[-3000:]
    asked = [json.dumps(request["messages"]) for request in judge.requests]
    votes = 3  # the baseline's rewrite is graded that often
    assert len(asked) > paid and max(map(asked.count, asked)) <= votes


@pytest.mark.slow
def test_several_reward_workers_share_one_engine(setting):
    output = setting.folder / "shared"
    overrides = (f"recipe.output_dir={output}", "reward.num_workers=2", "rewriter.ledger.shared=ray")
    _, result = setting.train_rl("fivedoctors_grpo", 2, *overrides)
    assert_trained(output, result, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RL_RECIPES)
def test_two_steps_of_every_shipped_recipe(recipe, tmp_path):
    own = Setting(tmp_path, recipe.rsplit("_", 1)[0])
    try:
        extra = ("recipe.rl.prompts_per_step=16", "recipe.rl.prompts_per_update=16") if recipe.endswith("_ppo") else ()
        output, result = own.train_rl(recipe, 2, "trainer.critic_warmup=0", *extra)
        assert_trained(output, result, steps=2)
    finally:
        own.service.kill()


@pytest.mark.slow
def test_a_dead_service_stops_the_run_and_a_revived_one_resumes_it(setting):
    """The service is killed after step 3: nothing is scored, the run stops with its own code, and goes on later."""
    output = setting.folder / "outage"
    arguments = (
        f"recipe.output_dir={output}",
        f"recipe.start_from={setting.folder / 'tiny'}",
        "trainer.total_training_steps=12",
        "recipe.rl.prompts_per_step=4",
        "recipe.rl.prompts_per_update=4",
        "recipe.rl.micro_batch=16",
        "recipe.rl.max_new_tokens=8",
    )
    command = setting.command("fivedoctors_grpo", *arguments)
    with (setting.folder / "outage.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 500
        while not (output / "reward_metrics.jsonl").is_file() or len(logged_steps(output)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        setting.service.kill()
        assert process.wait(timeout=300) == 75
    stopped = json.loads((output / "stopped.json").read_text())
    assert stopped["reason"] == "services_unavailable"
    assert "stopped:" in (setting.folder / "outage.log").read_text()
    finished = stopped["step"] - 1
    assert (output / f"global_step_{finished}" / "actor").is_dir()
    assert logged_steps(output)[-1]["abstained"] > 0.05

    setting.service.start()
    result = run_command(*command)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    resumed = [row["step"] for row in logged_steps(output)]
    assert resumed[-1] == 12 and not (output / "stopped.json").exists()
    # Nothing finished before the outage is done again, and every step is logged once.
    assert resumed == list(range(1, 13))


@pytest.mark.full
@pytest.mark.parametrize(
    ("recipe", "sign"),
    [("fivedoctors_sft", b"train/loss"), pytest.param("fivedoctors_grpo", b"avg_reward:", marks=pytest.mark.slow)],
)
def test_an_interrupted_run_leaves_no_process_behind(setting, recipe, sign):
    command = setting.command(
        recipe,
        f"recipe.output_dir={setting.folder / f'interrupted_{recipe}'}",
        "recipe.sft.batch=16",
        "recipe.sft.micro_batch=16",
        "recipe.sft.epochs=500",
        *(() if recipe.endswith("_sft") else (f"recipe.start_from={setting.folder / 'tiny'}",)),
    )
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    seen = any(sign in line for line in process.stdout)
    assert seen, "the trainer ended before its first step"
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    os.kill(process.pid, signal.SIGTERM)
    process.stdout.read()
    assert process.wait(timeout=60) == 130
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
