"""A release of the medical assistant: the value head out of shards, the bundle, and what forbids it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluation.medical.comparison import Advice
from export.medical.layout import Round
from export.medical.value_head import critic_of, save_value_head
from export.medical_release import main
from export.medical_round import artefacts, write_manifest
from export.medical_round import main as make_round
from recipes.compose import compose_recipe, recipe_yaml
from reward.records.files import BadInput
from tests.support.commands import run_python


def complete_round(root: Path, *, rollback: bool = False, name: str = "r1") -> Round:
    one = Round(root, name)
    (one.model / "policy").mkdir(parents=True)
    (one.model / "policy/config.json").write_text("{}")
    (one.model / "adapter").mkdir()
    (one.model / "adapter/adapter_config.json").write_text("{}")
    (one.model / "value_head.safetensors").write_bytes(b"head")
    for path in artefacts(one):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}\n", encoding="utf-8")
    recipe = recipe_yaml(compose_recipe("medical_ppo", ["teacher=deepseek_v3"]))
    (one.model / "recipe.yaml").write_text(recipe, encoding="utf-8")
    write_manifest(one, [], Advice(rollback, "because"))
    return one


def run(root: Path, *options: str) -> int:
    return main(["--root", str(root), "--round", "r1", *options])


def test_the_bundle_holds_what_a_release_needs_and_the_hash_of_each_file(tmp_path):
    complete_round(tmp_path)
    assert run(tmp_path) == 0
    out = tmp_path / "models/rl/v1.0-rl"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names >= {
        "policy/config.json", "adapter/adapter_config.json", "value_head.safetensors", "recipe.yaml", "reward_rules.md",
        "teacher_judgements.jsonl", "eval_report.md", "rl_pipeline.md", "round.json", "release.json",
    }  # fmt: skip
    record = json.loads((out / "release.json").read_text(encoding="utf-8"))
    assert set(record["files"]) == names - {"release.json"}
    page = (out / "rl_pipeline.md").read_text(encoding="utf-8")
    assert "deepseek-chat v3.1, template v1" in page and "teacher-v2" in page and "LoRA rank 64" in page


@pytest.mark.parametrize(
    "module",
    ["data_prep.build_medical", "evaluation.medical_inspect", "evaluation.medical_review", "export.medical_release"],
)
def test_every_command_runs_as_a_module(module):
    result = run_python("-m", module, "--help")
    assert result.returncode == 0 and f"python -m {module}" in result.stdout


def test_a_round_that_should_be_rolled_back_is_not_released(tmp_path, capsys):
    complete_round(tmp_path, rollback=True)
    assert run(tmp_path) == 2
    assert "a rollback to SFT is advised" in capsys.readouterr().err
    assert not (tmp_path / "models/rl/v1.0-rl").exists()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda one: one.report.write_text("better"), "was changed since round r1"),
        (lambda one: (one.model / "policy/config.json").write_text("[]"), "was changed since round r1"),
        (lambda one: (one.model / "value_head.safetensors").unlink(), "is missing"),
        (lambda one: (one.model / "reward_rules.md").unlink(), "is missing"),
        (lambda one: (one.model / "reward_rules.md").write_text("x"), "was changed since round r1"),
        (lambda one: (one.model / "round.json").unlink(), "complete the round"),
        (lambda one: (one.model / "round.json").write_text("{"), "not a round's record"),
        (lambda one: (one.model / "round.json").write_text("{}"), "not a round's record"),
    ],
)
def test_a_round_that_is_not_what_it_was_is_one_line(tmp_path, capsys, spoil, why):
    spoil(complete_round(tmp_path))
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and why in error


def test_judgements_of_a_later_round_do_not_forbid_a_release_and_a_version_stays(tmp_path, capsys):
    one = complete_round(tmp_path)
    with (one.data / "teacher_judgements.jsonl").open("a") as out:
        out.write("later\n")
    (one.data / "reward_rules.md").write_text("of the next round")
    assert run(tmp_path) == 0
    assert run(tmp_path) == 2 and "is there already" in capsys.readouterr().err
    assert run(tmp_path, "--version", "../x") == 2


def test_a_round_without_all_artefacts_has_no_record(tmp_path):
    one = complete_round(tmp_path)
    (one.model / "rewards.csv").unlink()
    with pytest.raises(BadInput, match=r"round r1: lacks .*rewards.csv"):
        write_manifest(one, [], Advice(False, ""))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--round", "a b"], "--round 'a b'"),
        (["--round", "r1"], "training_prompts.jsonl: no such file; build it with data_prep.build_medical"),
    ],
)
def test_a_round_that_cannot_begin_is_one_line(tmp_path, capsys, arguments, why):
    assert make_round([*arguments, "--root", str(tmp_path), "--sft", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err


def critic(run: Path, tensors: dict, world: int = 1, rank: int = 0) -> Path:
    folder = run / "global_step_8/critic"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fsdp_config.json").write_text(json.dumps({"world_size": world}))
    torch.save(tensors, folder / f"model_world_size_{world}_rank_{rank}.pt")
    (run / "latest_checkpointed_iteration.txt").write_text("8")
    return folder


def test_the_value_head_is_taken_out_of_the_critics_shards(tmp_path):
    head = torch.arange(8.0).view(1, 8)
    critic(tmp_path, {"base.score.weight": head, "model.embed.weight": torch.ones(4, 8), "q.lora_A.weight": head})
    out = tmp_path / "value_head.safetensors"
    assert save_value_head(critic_of(tmp_path), out) == 2
    found = load_file(out)
    assert torch.equal(found["base.score.weight"], head) and set(found) == {"base.score.weight", "q.lora_A.weight"}


def test_the_best_steps_critic_comes_first_then_the_last_one(tmp_path):
    last = critic(tmp_path, {})
    (tmp_path / "checkpoints/step_4/actor").mkdir(parents=True)
    (tmp_path / "checkpoints/best").symlink_to("step_4")
    assert critic_of(tmp_path) == last
    (tmp_path / "global_step_4/critic").mkdir(parents=True)
    assert critic_of(tmp_path).parent.name == "global_step_4"


def test_a_critic_without_a_head_or_a_shard_is_one_line_and_no_critic_is_none(tmp_path):
    assert critic_of(tmp_path) is None
    folder = critic(tmp_path, {"model.embed.weight": torch.ones(4, 8)})
    with pytest.raises(BadInput, match="hold no value head"):
        save_value_head(folder, tmp_path / "h.safetensors")
    critic(tmp_path, {}, world=2)
    with pytest.raises(BadInput, match=r"lacks model_world_size_2_rank_1\.pt"):
        save_value_head(folder, tmp_path / "h.safetensors")
