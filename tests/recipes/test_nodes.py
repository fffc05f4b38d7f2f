"""What a recipe for several nodes must say, and what is submitted to a cluster."""

import ast
import os
import subprocess
import sys

import pytest

from recipes.checks.finding import Level, bad, ok
from recipes.checks.nodes import (
    Look,
    check_nodes,
    is_loopback,
    look_at_node,
    node_findings,
    service_urls,
    unreachable,
)
from recipes.checks.settings import check_settings
from recipes.cluster import hand_to_workers, joins_cluster
from recipes.compose import compose_recipe
from recipes.submit import copy_sources, job_command, job_variables, main, quoted
from reward.records.files import BadInput
from tests.support.asgi_server import AsgiServer

SHARED = ("recipe.data_dir=/shared/data", "recipe.output_dir=/shared/run")
RAG = "rewriter.tenant.rag.url=http://rag.internal:8000"


def recipe(*overrides, name="grpo", machine="gpu8x2"):
    config = compose_recipe(name, ["tenant=fivedoctors", f"machine={machine}", *overrides])
    return config, check_settings(name, config)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.",
        "rag.localhost",
        "127.0.0.1",
        "127.8.8.8",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_an_address_of_whichever_machine_asks_is_a_loopback(host):
    assert is_loopback(f"http://{host}:8000/v1")


@pytest.mark.parametrize("host", ["rag", "rag.internal", "10.0.0.1", "[fd00::1]", "localhost.example.com", "128.0.0.1"])
def test_an_address_of_one_machine_is_none(host):
    assert not is_loopback(f"http://{host}:8000")


def test_a_recipe_for_two_nodes_that_says_everything_passes():
    check_nodes(*recipe(*SHARED, RAG))
    check_nodes(*recipe(machine="gpu4"))  # and one node may use its loopback


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*SHARED], "rewriter.tenant.rag.url=http://127.0.0.1:8000"),
        ([*SHARED, RAG, "judge=self_hosted"], "rewriter.judge.base_url=http://127.0.0.1:8100/v1"),
        ([*SHARED, RAG, "rewriter.tenant.baseline.url=http://localhost:7861"], "rewriter.tenant.baseline.url"),
        ([*SHARED, RAG, "rewriter.ledger.shared=process"], "rewriter.ledger.shared=ray"),
        ([RAG, "recipe.output_dir=/shared/run"], "data.train_files=outputs/data/fivedoctors/rl_train.parquet"),
        ([RAG, "recipe.data_dir=/shared/data"], "trainer.default_local_dir=outputs/rl/fivedoctors"),
    ],
)
def test_what_only_one_node_understands_is_refused_in_one_line(overrides, said):
    with pytest.raises(BadInput) as refused:
        check_nodes(*recipe(*overrides))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_sft_runs_on_one_node():
    with pytest.raises(BadInput, match="SFT runs on one node"):
        check_nodes(*recipe(*SHARED, name="sft"))


def test_a_node_says_what_it_lacks(tmp_path):
    config, _ = recipe(machine="cpu")
    (tmp_path / "here").touch()
    with AsgiServer(lambda *_: None, lifespan="off") as server:
        found = look_at_node(config, "10.0.0.1", 1, [str(tmp_path / "here")], [server.url], None)
        assert found.findings == [] and unreachable(server.url) == ""
    gone = look_at_node(config, "10.0.0.1", 1, [str(tmp_path / "gone")], [server.url], None)
    assert [finding.subject for finding in gone.findings] == ["files", "services"]
    assert (
        all(finding.level is Level.BAD for finding in gone.findings) and str(tmp_path / "gone") in gone.findings[0].text
    )


def test_what_nodes_have_in_common_is_said_once():
    config, _ = recipe()
    shm, files = ok("shm", "/dev/shm has 64 GiB"), bad("files", "not there: /shared/run")
    looks = [Look("10.0.0.1", 8, "", [shm]), Look("10.0.0.2", 8, "", [shm, files])]
    nodes, common, own = node_findings(config, looks)
    assert nodes.level is Level.WARNING and "10.0.0.1 (8 GPU), 10.0.0.2 (8 GPU)" in nodes.text
    assert common.text.startswith("10.0.0.1, 10.0.0.2: ") and own.text.startswith("10.0.0.2: not there")
    # A head without cards beside two nodes with eight is no hindrance; a node too few is.
    head = Look("10.0.0.9", 0, "", [])
    assert node_findings(config, [head, *looks[:1], Look("10.0.0.3", 8, "", [])])[0].level is Level.OK
    assert node_findings(config, [head, looks[0]])[0].level is Level.BAD


def test_workers_get_the_launchers_variables_and_ray_no_sizes():
    config, _ = recipe(machine="cpu")
    config.ray_kwargs.ray_init.runtime_env = {"env_vars": {"MINE": "1"}}
    hand_to_workers(config, {"WANDB_RUN_ID": "abc", "MINE": "2"})
    assert config.ray_kwargs.ray_init == {"runtime_env": {"env_vars": {"WANDB_RUN_ID": "abc", "MINE": "1"}}}
    assert joins_cluster({"RAY_ADDRESS": "10.0.0.1:6379"}) and not joins_cluster({"RAY_ADDRESS": ""})


def test_a_job_names_the_same_places_on_every_node(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = "outputs/it's here, too"
    overrides = ["tenant=fivedoctors", RAG, f"recipe.output_dir={quoted(target)}", "judge=self_hosted"]
    config = compose_recipe("grpo", overrides)
    command = job_command("grpo", overrides, config)
    assert command[:4] == ["python", "-m", "recipes.launch", "grpo"]
    there = compose_recipe("grpo", command[4:])
    assert there.trainer.default_local_dir == str(tmp_path / target)
    assert there.data.train_files == str(tmp_path / "outputs/data/fivedoctors/rl_train.parquet")
    assert there.rewriter.ledger.path == str(tmp_path / target / "ledger.sqlite")
    assert there.model.path == str(tmp_path / "outputs/sft/fivedoctors/final")
    assert there.recipe.pretrained == "Qwen/Qwen3-8B" and there.rewriter.judge.model == "judge"


def test_named_variables_go_along_and_no_others():
    config = compose_recipe("grpo", ["tenant=fivedoctors", "judge=deepseek_v3"])
    here = {"DEEPSEEK_API_KEY": "a", "OPENAI_API_KEY": "b", "WANDB_API_KEY": "c", "SECRET": "d", "NCCL_DEBUG": "INFO"}
    assert job_variables(config, [], here) == {"DEEPSEEK_API_KEY": "a", "WANDB_API_KEY": "c"}
    assert job_variables(config, ["NCCL_DEBUG"], here)["NCCL_DEBUG"] == "INFO"
    with pytest.raises(BadInput, match="--env ABSENT"):
        job_variables(config, ["ABSENT"], here)
    # What the machine profile sets is not sent: Ray refuses a variable that comes twice.
    own = compose_recipe("grpo", ["tenant=fivedoctors", "machine=cpu"])
    assert "HF_HUB_OFFLINE" not in job_variables(own, [], {"HF_HUB_OFFLINE": "1"})


def test_the_sources_go_along_without_data(tmp_path):
    copy_sources(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"recipes/launch.py", "recipes/config/machine/gpu8x2.yaml", "reward/judge/prompts/pointwise-v2.txt"} <= names
    assert {path.rpartition(".")[2] for path in names} == {"py", "yaml", "txt", "lock"}


def test_what_goes_along_is_all_that_a_run_imports(tmp_path):
    copy_sources(tmp_path)
    program = """
import sys, recipes.launch, reward.verl_reward, reward.engine_actor, reward.judge.judge, export.merge
ours = ("recipes", "reward", "export", "guard", "plain_text", "data_prep", "evaluation", "rag", "verl_cpu")
print([str(m.__file__) for n, m in sys.modules.items() if n.partition(".")[0] in ours and getattr(m, "__file__", None)])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    files = ast.literal_eval(ended.stdout)
    assert len(files) > 50 and [file for file in files if not file.startswith(str(tmp_path))] == []


def test_without_a_cluster_nothing_is_submitted(capsys, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert main(["grpo", "tenant=fivedoctors"]) == 2
    assert "--address" in capsys.readouterr().err


def test_services_are_those_that_the_recipe_calls():
    _, settings = recipe(RAG, "judge=gpt5")
    assert set(service_urls(settings)) == {"rewriter.tenant.rag.url", "rewriter.judge.base_url"}
