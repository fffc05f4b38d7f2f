"""The best checkpoint: which one it is, what is kept of it, and what it survives."""

import json
from pathlib import Path

import pytest

from recipes.best_checkpoint import forget_best_after, keep_best, read_best
from recipes.checks.settings import check_frequencies, check_settings
from recipes.compose import compose_recipe, plain
from reward.records.files import BadInput
from reward.settings.recipe import RewriterSettings, parse_settings

SHARDS = ("model_world_size_1_rank_0.pt", "optim_world_size_1_rank_0.pt", "extra_state_world_size_1_rank_0.pt")


def settings(*overrides: str) -> RewriterSettings:
    return parse_settings(plain(compose_recipe("grpo", ["tenant=fivedoctors", *overrides]).rewriter), "rewriter")


def save(run: Path, step: int) -> Path:
    actor = run / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    for name in (*SHARDS, "fsdp_config.json", "huggingface/config.json"):
        (actor / name).write_text(f"{name} of step {step}")
    (actor.parent / "data.pt").touch()
    return actor


def validate(run: Path, step: int, avg_reward: float | None, abstained: float = 0.0, **more: float) -> None:
    line = {"step": step, "rollouts": 7, "abstained": abstained, **more}
    if avg_reward is not None:
        line["avg_reward"] = avg_reward
    with (run / "validation_metrics.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")


def keep(run: Path, *overrides: str) -> dict | None:
    return keep_best(run, settings(*overrides), "f00d")


def best_weights(run: Path) -> str:
    return (run / "checkpoints/best/actor" / SHARDS[0]).read_text()


def test_the_best_of_the_saved_steps_is_kept_and_a_better_unsaved_one_is_named(tmp_path):
    validate(tmp_path, 0, 0.0)
    assert keep(tmp_path) is None and not (tmp_path / "checkpoints").exists()
    save(tmp_path, 20)
    assert keep(tmp_path) is None  # saved, and not yet validated
    validate(tmp_path, 20, 0.2)
    validate(tmp_path, 30, 0.5)
    assert keep(tmp_path) == {
        "step": 20, "metric": "avg_reward", "value": 0.2, "abstained": 0.0, "config_sha256": "f00d",
        "better_unsaved": {"step": 30, "value": 0.5},
    }  # fmt: skip
    save(tmp_path, 40)
    validate(tmp_path, 40, 0.6)
    assert keep(tmp_path) == read_best(tmp_path)
    assert read_best(tmp_path)["step"] == 40 and read_best(tmp_path)["better_unsaved"] is None
    assert best_weights(tmp_path).endswith("step 40")
    # One best at a time, and nothing half made.
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best", "step_40"]


def test_a_better_unsaved_step_that_comes_later_is_written_down(tmp_path):
    save(tmp_path, 20)
    validate(tmp_path, 20, 0.2)
    keep(tmp_path)
    validate(tmp_path, 30, 0.3)
    keep(tmp_path)
    assert read_best(tmp_path)["better_unsaved"] == {"step": 30, "value": 0.3}


def test_it_holds_the_policys_weights_as_hard_links_and_no_optimiser(tmp_path):
    actor = save(tmp_path, 20)
    validate(tmp_path, 20, 0.2)
    keep(tmp_path)
    kept = {str(path.relative_to(tmp_path / "checkpoints/best")) for path in (tmp_path / "checkpoints/best").rglob("*")}
    assert kept == {
        "best.json", "actor", f"actor/{SHARDS[0]}", "actor/fsdp_config.json", "actor/huggingface",
        "actor/huggingface/config.json",
    }  # fmt: skip
    assert (actor / SHARDS[0]).samefile(tmp_path / "checkpoints/best/actor" / SHARDS[0])


def test_it_survives_the_removal_of_its_checkpoint_and_worse_ones(tmp_path):
    save(tmp_path, 20)
    validate(tmp_path, 20, 0.4)
    keep(tmp_path)
    for path in (tmp_path / "global_step_20" / "actor").rglob("*.*"):
        path.unlink()
    save(tmp_path, 40)
    validate(tmp_path, 40, 0.1)
    assert keep(tmp_path)["step"] == 20 and best_weights(tmp_path).endswith("step 20")


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        ({"avg_reward": 0.2}, {"avg_reward": 0.9, "abstained": 0.06}, 20),
        ({"avg_reward": 0.2}, {"avg_reward": 0.9, "abstained": 0.05}, 40),
        ({"avg_reward": 0.2}, {"avg_reward": 0.2}, 20),  # of equals the earliest
        ({"avg_reward": None, "abstained": 0.0}, {"avg_reward": -0.5}, 40),
        ({"avg_reward": -0.5}, {"avg_reward": float("nan")}, 20),
    ],
)
def test_which_validation_counts(tmp_path, first, second, best):
    for step, metrics in ((20, first), (40, second)):
        save(tmp_path, step)
        validate(tmp_path, step, **metrics)
    assert keep(tmp_path)["step"] == best


def test_no_validation_counts(tmp_path):
    save(tmp_path, 20)
    validate(tmp_path, 20, 0.9, abstained=0.5)
    assert keep(tmp_path) is None


def test_of_a_validation_made_twice_the_later_counts(tmp_path):
    save(tmp_path, 20)
    save(tmp_path, 40)
    validate(tmp_path, 20, 0.9)
    validate(tmp_path, 40, 0.3)
    validate(tmp_path, 20, 0.9, abstained=0.5)
    assert keep(tmp_path)["step"] == 40


def test_another_metric_is_read_under_the_policys_name(tmp_path):
    for step, reward, win_rate in ((20, 0.9, 0.1), (40, 0.1, 0.6)):
        save(tmp_path, step)
        validate(tmp_path, step, reward, **{"8b_win_rate": win_rate})
    kept = keep(tmp_path, "rewriter.keep_best.metric=win_rate")
    assert (kept["step"], kept["metric"], kept["value"]) == (40, "win_rate", 0.6)


def test_a_torn_checkpoint_is_no_candidate(tmp_path):
    save(tmp_path, 20)
    (tmp_path / "global_step_20" / "data.pt").unlink()
    validate(tmp_path, 20, 0.9)
    assert keep(tmp_path) is None


@pytest.mark.parametrize("left", ["checkpoints/step_20/actor", "checkpoints/.step_20.partial/actor"])
def test_what_a_kill_left_half_made_is_made_anew(tmp_path, left):
    (tmp_path / left).mkdir(parents=True)
    (tmp_path / left / SHARDS[0]).write_text("half")
    save(tmp_path, 20)
    validate(tmp_path, 20, 0.2)
    keep(tmp_path)
    assert best_weights(tmp_path).endswith("step 20")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best", "step_20"]


def test_a_best_of_a_step_that_is_taken_again_goes(tmp_path):
    save(tmp_path, 20)
    validate(tmp_path, 20, 0.2)
    keep(tmp_path)
    assert forget_best_after(tmp_path, 20) is None and read_best(tmp_path)["step"] == 20
    assert forget_best_after(tmp_path, 10) == 20 and read_best(tmp_path) is None
    assert not any((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("rewriter.keep_best.metric=copy_rate", "keep_best.metric"),
        ("rewriter.keep_best.metric=judge_score", "there is no judge"),
        ("rewriter.keep_best.max_abstained=2", "max_abstained"),
    ],
)
def test_a_metric_that_cannot_say_what_is_best_is_refused(override, word):
    with pytest.raises(BadInput, match=word):
        check_settings("grpo", compose_recipe("grpo", ["tenant=fivedoctors", override]))


def test_an_epoch_that_is_saved_is_validated():
    config = compose_recipe("grpo", ["tenant=fivedoctors", "recipe.rl.validate_every_epochs=3"])
    with pytest.raises(BadInput, match="save_every_epochs: 2 is no multiple of validate_every_epochs, 3"):
        check_frequencies(config)
    for recipe in ("ppo", "grpo", "rloo", "sft"):
        check_frequencies(compose_recipe(recipe, ["tenant=fivedoctors"]))
