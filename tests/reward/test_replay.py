"""`python -m reward.replay`: what the log holds is scored exactly, what it lacks is never invented."""

import csv
import json
import math
from pathlib import Path

import pytest

from reward.records.outcome import AbstainReason, Evidence, Gated, Judgement, Scored
from reward.replay import main
from reward.rewrite import formulas
from reward.rollouts.rescoring import Comparison, Missing, rescore, rescore_run
from reward.settings.recipe import RewardSettings, load_tenant
from reward.task import Task, make_task
from tests.support.logged_rollouts import evidence, healthy_run, make_rollout, make_sample, pointwise, write_run

V1, V2 = RewardSettings(formula="v1"), RewardSettings()
LEXICON = load_tenant("fivedoctors").lexicon


def task_of(settings: RewardSettings) -> Task:
    return make_task("rewrite", settings, lambda sample: LEXICON, has_judge=False)


def record_settings(run: Path, reward: dict) -> None:
    """What the launcher leaves in a run's folder, with an interpolation as recipes have them."""
    tenant = load_tenant("fivedoctors").model_dump()
    config = {
        "recipe": {"cap": 500},
        "rewriter": {"reward": {"length": {"cap": "${recipe.cap}"}, **reward}, "tenant": tenant},
    }
    file = run / "recipe.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def replayed(tmp_path, rollouts, *arguments: str) -> list[dict]:
    run, out = write_run(tmp_path / "run", rollouts), tmp_path / "out.jsonl"
    assert main(["--run", str(run), "--out", str(out), *arguments]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("settings", [V2, V1, RewardSettings(weight_judge=1.0, gate_floor=-0.5)])
def test_a_run_under_its_own_settings_gives_back_every_reward(tmp_path, capsys, settings):
    rescored = [(rollout, rescore(rollout, task_of(settings))) for rollout in healthy_run(steps=4)]
    own = [r.model_copy(update={"outcome": outcome}) for r, outcome in rescored if not isinstance(outcome, Missing)]
    run = write_run(tmp_path, own)
    record_settings(run, settings.model_dump(mode="json", exclude={"length"}))
    assert main(["--run", str(run)]) == 0
    printed = capsys.readouterr().out
    scored = sum(rollout.outcome.kind != "abstained" for rollout in own)
    assert f"identical rewards: {scored} of {scored}" in printed and "top movers" not in printed


def test_v2_logs_scored_by_v1(tmp_path):
    rollouts = [make_rollout(11, judgement=pointwise(5, 4)), make_rollout(12, judgement=pointwise(2, 4), top1=0.5)]
    rows = replayed(tmp_path, rollouts, "--formula", "v1")
    for row, rollout in zip(rows, rollouts, strict=True):
        judgement = rollout.judgement
        expected = formulas.reward_v1(
            formulas.retrieval_term_v1(rollout.policy.top_hits, rollout.baseline.top_hits),
            formulas.judge_term_v1(judgement.policy_score, judgement.baseline_score),
        )
        assert row["after"] == expected.reward and row["before"] == rollout.outcome.reward


def test_settings_change_one_by_one(tmp_path):
    rollout = make_rollout(11, judgement=pointwise(5, 4), rank=3, baseline_rank=1)
    changes = ["--set", "weight_retrieval=0", "--set", "length.target=2", "--set", "length.penalty=0.01"]
    (row,) = replayed(tmp_path, [rollout], *changes)
    excess = len(rollout.completion) - 2
    assert row["after"] == pytest.approx(math.tanh(2 * 0.2) - 0.01 * excess)
    assert row["before"] < 0 < row["after"]


def test_gates_are_run_again_from_the_text(tmp_path):
    dropped = make_rollout(0, rewrite="鱼油 用法", settings=V1)  # 孕妇 is gone; v1 has no gates
    (row,) = replayed(tmp_path, [dropped], "--formula", "v2")
    assert (row["before_kind"], row["after_kind"], row["after_reason"]) == ("scored", "gated", "protected_term_dropped")
    (row,) = replayed(tmp_path / "b", [dropped], "--formula", "v2", "--set", "gates=[empty]")
    assert row["after_kind"] == "scored"


def test_what_the_log_lacks_is_missing_not_scored(tmp_path, capsys):
    gated = make_rollout(11, rewrite="<think>嗯</think>")
    preferred = make_rollout(12, judgement=Judgement(mode="pairwise", preference=1.0, orders_agree=True, intent=5))
    rows = replayed(tmp_path, [gated, preferred], "--formula", "v1")
    assert [(row["after_kind"], row["after"]) for row in rows] == [("missing", None)] * 2
    printed = capsys.readouterr().out
    assert "not scored again: 1 (gated in the run" in printed
    assert "not scored again: 1 (a pairwise judgement without scores" in printed
    (row,) = replayed(tmp_path / "b", [make_rollout(11)], "--set", "weight_retrieval=0")
    assert (row["after_kind"], row["after"]) == ("missing", None)


def test_an_abstention_stays_one(tmp_path):
    no_judge = make_rollout(11, failed=AbstainReason.JUDGE)
    no_hits = make_rollout(11, failed=AbstainReason.RAG, judgement=pointwise(5, 4))
    no_baseline = make_rollout(11, failed=AbstainReason.BASELINE).model_copy(
        update={"baseline_rewrite": "", "policy": None, "baseline": None}
    )
    rollouts = [no_judge, no_hits, no_baseline]
    rows = replayed(tmp_path, rollouts, "--formula", "v1")
    assert [row["after_kind"] for row in rows] == ["abstained"] * 3


def test_shaping_follows_the_steps_of_training():
    validated = make_sample(11).model_copy(
        update={"metadata": make_sample(11).metadata.model_copy(update={"split": "val"})}
    )
    low = [make_rollout(11, step=5000, rank=1, baseline_rank=1, top1=0.3, settings=V1) for _ in range(99)]
    steps = [999, 1000, 4999, 5000]
    high = [make_rollout(11, step=step, top1=0.9, settings=V1) for step in steps]
    shaped = RewardSettings(formula="v1", adaptive_shaping=True)
    outcomes = [row.outcome for row in rescore_run([*high[:3], *low, high[3]], task_of(shaped))]
    assert [outcome.parts.shaping for outcome in (*outcomes[:3], outcomes[-1])] == [1.5, 1.0, 1.0, 1.3]
    (unshaped,) = rescore_run([make_rollout(11, step=1, sample=validated, settings=V1)], task_of(shaped))
    assert unshaped.outcome.parts.shaping == 1.0


def comparison(rollouts, settings, **options) -> Comparison:
    compared = Comparison(**options)
    for row in rescore_run(rollouts, task_of(settings)):
        compared.add(row)
    return compared


def test_metrics_of_a_reversal():
    # The judge prefers what retrieves worst: weighing only the judge turns every group round.
    ranks = (1, 2, 5, 20)
    rollouts = [
        make_rollout(11, step=step, rank=rank, baseline_rank=3, judgement=pointwise(grade, 3), settings=only_retrieval)
        for only_retrieval in [RewardSettings(weight_judge=0)]
        for step in (1, 2)
        for rank, grade in zip(ranks, (1, 2, 4, 5), strict=True)
    ]
    metrics = comparison(rollouts, RewardSettings(weight_retrieval=0)).metrics()
    assert metrics["spearman"] == pytest.approx(-1) and metrics["spearman_in_groups"] == pytest.approx(-1)
    assert (metrics["groups"], metrics["best_changed"], metrics["best_of"]) == (2, 2, 2)
    assert (metrics["flipped_up"], metrics["flipped_down"], metrics["identical"]) == (4, 4, 0)


def test_siblings_are_those_of_one_step():
    rollouts = [make_rollout(11, step=step, rank=rank) for step, rank in ((1, 1), (1, 9), (2, 1), (2, 9))]
    metrics = comparison(rollouts, RewardSettings(formula="v2", gate_floor=-0.5)).metrics()
    assert metrics["groups"] == 2 and metrics["spearman_in_groups"] == pytest.approx(1)
    assert metrics["advantage_shift"] == 0 and metrics["identical"] == 4


def test_equal_rewards_have_no_rank_correlation():
    metrics = comparison([make_rollout(11), make_rollout(11)], V2).metrics()
    assert "spearman" not in metrics and "spearman_in_groups" not in metrics and metrics["identical"] == 2


def test_top_movers_are_the_largest_changes_each_once():
    rollouts = [
        make_rollout(number, step=step, rank=1 + number, judgement=pointwise(1, 5))
        for step in (1, 2)
        for number in range(10, 40)
    ]
    compared = comparison(rollouts, RewardSettings(weight_retrieval=0), movers=5)
    movers = compared.movers()
    changes = [abs(mover.after - mover.before) for mover in movers]
    assert len({(m.query, m.rewrite) for m in movers}) == 5 and changes == sorted(changes, reverse=True)
    every = {(r.sample.original_query, r.completion): r for r in rollouts}
    rescored = [
        rescore(r, task_of(RewardSettings(weight_retrieval=0))).reward - r.outcome.reward for r in every.values()
    ]
    assert changes == pytest.approx(sorted(map(abs, rescored), reverse=True)[:5])


def test_what_looks_like_markup_is_printed_as_it_is(tmp_path, capsys):
    rollout = make_rollout(11, rewrite="钙片 [/red][bold]用法", judgement=pointwise(1, 5))
    run = write_run(tmp_path, [rollout])
    assert main(["--run", str(run), "--set", "weight_retrieval=0", "--set", "gates=[empty]"]) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert "[/red]" in printed and "gates=[empty]" in printed


def test_a_table_for_excel(tmp_path):
    run, out = write_run(tmp_path, [make_rollout(11), make_rollout(12, failed=AbstainReason.RAG)]), tmp_path / "o.csv"
    assert main(["--run", str(run), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(out.open(encoding="utf-8-sig", newline="")))
    assert [row["after_kind"] for row in rows] == ["scored", "abstained"] and rows[1]["after"] == ""
    assert float(rows[0]["after"]) == float(rows[0]["before"])


def test_intent_lost_is_gated_again_and_can_be_let_through():
    rollout = make_rollout(11, judgement=pointwise(4, 4, intent=2))
    assert isinstance(rollout.outcome, Gated) and isinstance(rescore(rollout, task_of(V2)), Gated)
    assert isinstance(rescore(rollout, task_of(V1)), Scored)


def test_nothing_found_is_evidence():
    rollout = make_rollout(11).model_copy(update={"policy": Evidence(), "baseline": evidence(1)})
    outcome = rescore(rollout, task_of(V2))
    assert isinstance(outcome, Scored) and outcome.reward == -1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "weight"], "--set weight: expected key=value"),
        (["--set", "wieght_judge=1"], "wieght_judge: Extra inputs are not permitted"),
        (["--set", "length.target=many"], "length.target: Input should be a valid integer"),
        (["--set", "weight_judge=[1"], "--set weight_judge=[1: not a key and a YAML value"),
        (["--set", "weight_judge=0", "--set", "weight_retrieval=0"], "weight_retrieval and weight_judge are both 0"),
        (["--settings", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--out", "table.xlsx"], "--out table.xlsx: expected a name that ends in .jsonl or .csv"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, capsys, arguments, message):
    run = write_run(tmp_path, [make_rollout(11)])
    assert main(["--run", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n", "expected the keys"),
        ("a: [", "cannot be read"),
        ("reward: {formula: v9}", "formula: Input should be"),
        ("reward: {gate_floor: '${nowhere}'}", "nowhere"),
        ("reward: 5", "reward: expected keys and values"),
        ("tenant: {tenant_id: a}", "short_id: Field required"),
    ],
)
def test_bad_settings_are_named(tmp_path, capsys, content, message):
    run, file = write_run(tmp_path, [make_rollout(11)]), tmp_path / "settings.yaml"
    file.write_text(content)
    assert main(["--run", str(run), "--settings", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{file}: " in error and message in error and error.count("\n") == 1


def test_a_failed_replay_leaves_the_earlier_table(tmp_path, capsys):
    run, out = write_run(tmp_path / "run", [make_rollout(11)]), tmp_path / "out.csv"
    out.write_text("earlier")
    log = next((run / "rollouts").iterdir())
    log.write_text(log.read_text() + "{}\n")
    assert main(["--run", str(run), "--out", str(out)]) == 2
    assert "row 2" in capsys.readouterr().err and out.read_text() == "earlier"


def test_no_log_and_an_empty_one(tmp_path, capsys):
    assert main(["--run", str(tmp_path)]) == 2 and "no rollouts" in capsys.readouterr().err
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "rollouts-00000.jsonl").touch()
    assert main(["--run", str(tmp_path)]) == 2 and "holds no rollout yet" in capsys.readouterr().err
