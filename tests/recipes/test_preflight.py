"""The whole preflight as a user starts it: a recipe for four cards, a live retrieval service, a table, an exit code."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from reward.records.sample import Candidates, Metadata, Sample
from tests.support import ROOT
from tests.support.asgi_server import AsgiServer
from tests.support.model_folder import write_model_folder
from tests.support.ports import refusing_url


@pytest.fixture(scope="module")
def service():
    app = FastAPI()

    @app.post("/api/chat/general_rag")
    def retrieve() -> dict:
        return {"data": {"recall": [{"content": "鱼油", "doc_id": "1", "reranker_score": 0.9}]}}

    with AsgiServer(app) as server:
        yield server


@pytest.fixture
def setting(tmp_path, service):
    """Overrides of a run that has everything but the machine."""
    rows = []
    for number in range(64):
        sample = Sample(
            sample_id=str(number), original_query=f"鱼油{number}", metadata=Metadata(tenant_id="fivedoctors"),
            candidates=Candidates(baseline="鱼油 用法"), relevant_doc_ids=("1",),
        )  # fmt: skip
        rows.append({"prompt": [{"role": "user", "content": "鱼油咋吃"}], "extra_info": sample.to_extra_info(number)})
    for name in ("rl_train.parquet", "rl_val.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    write_model_folder(tmp_path / "model")
    return [
        "tenant=fivedoctors",
        f"recipe.data_dir={tmp_path}",
        f"recipe.output_dir={tmp_path / 'run'}",
        f"recipe.start_from={tmp_path / 'model'}",
        f"rewriter.tenant.rag.url={service.url}",
        "trainer.logger=[console]",
    ]


def preflight(tmp_path, module, overrides, cards=""):
    """Run it with a program nvidia-smi that lists `cards`; without one when there are none."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    if cards:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{cards}\nEND\n")
        (folder / "nvidia-smi").chmod(0o755)
    # Nothing else of this machine is found: the path holds no other program that preflight calls.
    environment = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, "grpo", *overrides]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)


def lines_of(text, subject):
    return [line for line in text.splitlines() if line.split()[1:2] == [subject]]


def test_a_machine_without_cards_is_one_red_line_and_the_rest_is_shown(tmp_path, setting):
    ended = preflight(tmp_path, "recipes.preflight", setting)
    assert ended.returncode == 2, ended.stderr
    (cards,) = lines_of(ended.stdout, "GPUs")
    assert cards.startswith("BAD") and "nvidia-smi is not there" in cards
    assert any("actor update" in line for line in lines_of(ended.stdout, "memory"))
    assert lines_of(ended.stdout, "latency")[0].startswith("ok")
    assert lines_of(ended.stdout, "baseline")[0].startswith("ok")
    assert lines_of(ended.stdout, "top_p") == []


def test_cards_are_counted_and_the_plan_takes_their_memory(tmp_path, setting):
    cards = "\n".join(["NVIDIA L40S, 46068, 3, 580.82.07"] * 4)
    ended = preflight(tmp_path, "recipes.preflight", [*setting, "recipe.rl.top_p=0.9"], cards)
    assert lines_of(ended.stdout, "GPUs")[0].startswith("ok")
    assert "44.8 GiB" in lines_of(ended.stdout, "memory")[-1]
    assert lines_of(ended.stdout, "top_p")[0].startswith("warn")
    assert "rollout" in lines_of(ended.stdout, "step")[0]


def test_the_launcher_starts_nothing_on_a_machine_that_will_not_do(tmp_path, setting):
    ended = preflight(tmp_path, "recipes.launch", setting)
    assert ended.returncode == 2 and ended.stdout == ""
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: GPUs: nvidia-smi")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_cpu_recipe_asks_nothing_of_the_machine(tmp_path, setting):
    overrides = [*setting, "machine=cpu", "model=tiny", "trainer.logger=[console]"]
    ended = preflight(tmp_path, "recipes.preflight", overrides)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not lines_of(ended.stdout, "GPUs") and not lines_of(ended.stdout, "memory")


def test_everything_that_is_missing_is_shown_at_once(tmp_path, setting):
    absent = [
        *setting[:-1],
        f"recipe.data_dir={tmp_path / 'no data'}",
        f"recipe.start_from={tmp_path / 'no model'}",
        "trainer.logger=[wandb]",
        "judge=gpt5",
    ]
    ended = preflight(tmp_path, "recipes.preflight", absent)
    assert ended.returncode == 2 and ended.stderr == ""
    subjects = {line.split()[1] for line in ended.stdout.splitlines() if line.startswith("BAD")}
    assert {"start", "data", "logger", "GPUs", "judge"} <= subjects
    # The plan is of the model that the recipe descends from.
    assert any("actor update" in line for line in lines_of(ended.stdout, "memory"))
    assert lines_of(ended.stdout, "services")[0].startswith("warn")
    launched = preflight(tmp_path, "recipes.launch", absent)
    errors = [line.split()[1].rstrip(":") for line in launched.stderr.splitlines() if line.startswith("error: ")]
    assert launched.returncode == 2 and subjects <= {*errors, "host", "RAM"}


def test_a_service_that_is_down_hides_nothing_else(tmp_path, setting):
    with refusing_url() as down:
        overrides = [
            *setting,
            "machine=cpu",
            "model=tiny",
            f"rewriter.tenant.rag.url={down}",
            "rewriter.tenant.rag.attempts=1",
            f"rewriter.tenant.baseline.url={down}",
            "judge=self_hosted",
            f"rewriter.judge.base_url={down}",
        ]
        ended = preflight(tmp_path, "recipes.preflight", overrides)
    assert ended.returncode == 2 and ended.stderr == ""
    bad = {line.split()[1] for line in ended.stdout.splitlines() if line.startswith("BAD")}
    assert bad == {"retrieval", "judge"}
    # The prompts have their recorded baseline, so the run does not wait for the service.
    assert lines_of(ended.stdout, "baseline")[-1].startswith("warn")
    assert not lines_of(ended.stdout, "latency")
    assert "at most" in ended.stdout  # what the judge would cost
