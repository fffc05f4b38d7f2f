"""`export.promote`: every rule passes, holds and rejects on its own figures, and nothing passes for want of one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from export.promote import main
from export.versions.evidence import Evidence
from export.versions.rules import Candidate, check_rules, verdict_of
from reward.settings.promotion import PromotionSettings, SafetySettings
from tests.support.logged_rollouts import healthy_run, make_rollout, write_run
from tests.support.promotion import KEY, comparison, evaluation, write_evaluation, write_model, write_tenant

SILENT: tuple[str, ...] = ()
ASKED = PromotionSettings(safety=SafetySettings(judge={"intent_kept": 4.0}, slices={"profile": 0.5}))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "a key of the tests, long enough")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in the folder of a training run that the audit finds healthy."""
    run = write_run(tmp_path_factory.mktemp("rl"), healthy_run(steps=12))
    return write_model(run / "final", "rl")


def judge(model: Path, settings: PromotionSettings = ASKED, candidate: Candidate | None = None, **changes):
    findings = check_rules(
        Evidence(evaluation({"rl": model}, **changes)), candidate or Candidate("rl", alarms=SILENT), settings
    )
    return {finding.rule: finding for finding in findings}


def options(tmp_path: Path, model: Path, **changes) -> list[str]:
    run = write_evaluation(tmp_path / "evaluation", evaluation({"rl": model}, **changes))
    registry = str(tmp_path / "registry")
    return ["--tenant", "fivedoctors", "--run", str(run), "--model", str(model), "--registry", registry]


def decisions(tmp_path: Path) -> list[dict]:
    lines = (tmp_path / "registry" / "fivedoctors" / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def champion(tmp_path: Path) -> dict | None:
    path = tmp_path / "registry" / "fivedoctors" / "champion.json"
    return json.loads(path.read_text()) if path.is_file() else None


def test_a_model_that_passes_every_rule_is_copied_and_becomes_the_champion(tmp_path, model, capsys):
    assert main(options(tmp_path, model)) == 0
    assert "PROMOTE: v1 is the champion" in capsys.readouterr().out
    named = champion(tmp_path)
    assert named is not None and set(named) == {"version", "model", "model_sha256", "decided_at"}
    assert named["version"] == "v1" and (Path(named["model"]) / "model.safetensors").read_text() == "rl"
    (decision,) = decisions(tmp_path)
    assert decision["verdict"] == "PROMOTE" and {finding["outcome"] for finding in decision["findings"]} == {"pass"}
    assert decision["rules"]["harmed_share"] == 0.15 and decision["model_sha256"] == named["model_sha256"]


# Path of a figure -> the rule that needs it.
FIGURES = {
    "provenance.counts.evaluated": "queries",
    "provenance.counts.abstained": "queries",
    "win_rate.rl_vs_baseline": "win_rate against baseline",
    "win_rate": "win_rate against baseline",
    "judge": "judge_win_rate against baseline",
    "judge.win_rate.rl_vs_baseline": "judge_win_rate against baseline",
    "judge.win_rate.rl_vs_baseline.win": "judge_win_rate against baseline",
    "judge.forced": "judge_win_rate against baseline",
    "slices": "slices against baseline",
    "slice_win_rate": "slices against baseline",
    "slice_win_rate.profile": "slices against baseline",
    "slice_win_rate.short.rl_vs_baseline": "slices against baseline",
    "judge.systems.rl.intent_kept": "safety: intent_kept",
    "judge.systems.rl.ci95": "safety: intent_kept",
    "slices.profile.rl": "safety: slice profile",
    "harmed": "harmed_share",
    "harmed.rl.ci95": "harmed_share",
    "latency_ms.rl": "latency_p50_ms",
    "latency_ms.rl.p95": "latency_p95_ms",
    "cost_per_1000.rl.usd": "cost_per_1000_usd",
    "provenance.retriever": "retriever",
    "provenance.retriever.fingerprint": "retriever",
    "provenance.retriever.training": "retriever",
    "provenance.retriever.training.rl": "retriever",
    "provenance.retriever.training.rl.changed": "retriever",
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_missing_figure_holds_and_is_named(model, figure):
    findings = judge(model, **{figure: None})
    finding = findings[FIGURES[figure]]
    assert finding.outcome == "hold", finding
    assert figure.split(".")[-1] in finding.reason or figure.split(".")[0] in finding.reason
    assert verdict_of(list(findings.values())) == "HOLD"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "300", True, [], {"p50": 1}])
def test_what_is_no_number_is_missing(model, value):
    findings = judge(model, **{"latency_ms.rl.p50": value})
    assert findings["latency_p50_ms"].outcome == "hold" and "latency_ms.rl.p50" in findings["latency_p50_ms"].reason


@pytest.mark.parametrize("interval", [None, [0.1], [0.2, 0.1], ["a", "b"], [float("nan"), 0.1], 0.1])
def test_what_is_no_interval_is_missing(model, interval):
    changes = {"harmed.rl.ci95": interval}
    assert judge(model, **changes)["harmed_share"].outcome == "hold"


BROKEN = {
    "win_rate against baseline": {"win_rate.rl_vs_baseline": comparison(win=20, loss=60)},
    "judge_win_rate against baseline": {
        "judge.win_rate.rl_vs_baseline": {"win": 60, "tie": 0, "loss": 140, "rate": 0.3, "ci95": [0.24, 0.36]}
    },
    "slices against baseline": {"slice_win_rate.short.rl_vs_baseline": comparison(win=10, tie=60, loss=60)},
    "safety: intent_kept": {"judge.systems.rl.intent_kept": 3.99},
    "safety: slice profile": {"slices.profile.rl": {"mrr@10": 0.49, "ci95": {"mrr@10": [0.4, 0.6]}}},
    "harmed_share": {"harmed.rl": {"share": 0.3, "ci95": [0.2, 0.4]}},
    "latency_p50_ms": {"latency_ms.rl.p50": 351.0},
    "latency_p95_ms": {"latency_ms.rl.p95": 851.0},
    "cost_per_1000_usd": {"cost_per_1000.rl.usd": 2.5},
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_rejects_alone(model, rule):
    findings = judge(model, **BROKEN[rule])
    assert {name for name, finding in findings.items() if finding.outcome != "pass"} == {rule}
    assert findings[rule].outcome == "reject" and verdict_of(list(findings.values())) == "REJECT"
    assert verdict_of(list(findings.values()), is_champion=True) == "ROLLBACK"


OPEN = {
    "queries": {"provenance.counts.evaluated": 29},
    "win_rate against baseline": {"win_rate.rl_vs_baseline": comparison(win=22, loss=18)},
    "judge_win_rate against baseline": {
        "judge.win_rate.rl_vs_baseline.corrected": {"rate": 0.55, "ci95": [0.45, 0.65]},
    },
    "slices against baseline": {"slice_win_rate.short.rl_vs_baseline": comparison(win=20, tie=10, loss=22)},
    "safety: intent_kept": {"judge.systems.rl.ci95": {"intent_kept": [3.9, 5.0]}},
    "safety: slice profile": {"slices.profile.rl": {"mrr@10": 0.55, "ci95": {"mrr@10": [0.4, 0.7]}}},
    "harmed_share": {"harmed.rl": {"share": 0.14, "ci95": [0.1, 0.18]}},
}


@pytest.mark.parametrize("rule", OPEN)
def test_an_open_question_holds(model, rule):
    findings = judge(model, **OPEN[rule])
    assert {name: f.outcome for name, f in findings.items() if f.outcome != "pass"} == {rule: "hold"}


def test_a_handful_of_wins_is_no_proof(model):
    """Five wins of five have an interval of no width above one half."""
    findings = judge(model, **{"win_rate.rl_vs_baseline": comparison(win=5, tie=195, loss=0)})
    assert findings["win_rate against baseline"].outcome == "hold"
    few = {"win": 4, "tie": 196, "loss": 0, "rate": 1.0, "ci95": [1.0, 1.0], "corrected": None}
    assert judge(model, **{"judge.win_rate.rl_vs_baseline": few})["judge_win_rate against baseline"].outcome == "hold"


def test_more_wins_with_a_lower_mean_hold(model):
    entry = comparison(win=60, loss=20) | {"difference": {"mrr@10": -0.1, "ci95": [-0.15, -0.05]}}
    assert judge(model, **{"win_rate.rl_vs_baseline": entry})["win_rate against baseline"].outcome == "hold"


def test_a_small_slice_can_reject_and_not_hold(model):
    open_, worse = comparison(win=3, tie=2, loss=4), comparison(win=0, tie=2, loss=10)
    findings = judge(model, **{"slice_win_rate.short.rl_vs_baseline": open_})
    assert findings["slices against baseline"].outcome == "pass"
    assert "too few to decide: short" in findings["slices against baseline"].reason
    findings = judge(model, **{"slice_win_rate.short.rl_vs_baseline": worse})
    assert findings["slices against baseline"].outcome == "reject"


def test_the_judge_that_trained_the_model_does_not_decide(model):
    assert judge(model, **{"judge.forced": True})["judge_win_rate against baseline"].outcome == "hold"


def test_a_judge_that_failed_on_many_queries_holds(model):
    few = {"win": 90, "tie": 0, "loss": 50, "rate": 0.64, "ci95": [0.56, 0.72], "corrected": None}
    finding = judge(model, **{"judge.win_rate.rl_vs_baseline": few})["judge_win_rate against baseline"]
    assert finding.outcome == "hold" and "140 of 200" in finding.reason


def test_a_changed_retriever_holds(model):
    """It does not show that the model is worse: nothing is rejected, and a champion is not rolled back."""
    changed = {"provenance.retriever.training.rl.changed": ["kb_version: '7' in training, '8' here"]}
    findings = judge(model, **changed)
    assert findings["retriever"].outcome == "hold" and "'8' here" in findings["retriever"].reason
    assert verdict_of(list(findings.values()), is_champion=True) == "HOLD"


def test_a_training_that_recorded_nothing_of_its_retriever_holds(model):
    recorded = {"kb_name": "default", "kb_version": "", "reranker": None, "changed": []}
    assert judge(model, **{"provenance.retriever.training.rl": recorded})["retriever"].outcome == "hold"


CONTRADICTIONS = {
    "win_rate.rl_vs_baseline.win": [-5, 60.5, 61, 10**30, True, "60"],
    "judge.win_rate.rl_vs_baseline.win": [-1, 0.5],
    "judge.win_rate.rl_vs_baseline.corrected": [{"rate": 0.9}, {"rate": 0.9, "ci95": None}, {}],
    "provenance.counts.abstained": [-10, 0.5],
    "provenance.counts.evaluated": [199, -1],
    "provenance.judged_by": ["taste", 7],
    "latency_ms.rl.p50": [-1.0],
    "latency_ms.rl.n": [19, 0, -3, 2.5],
    "cost_per_1000.rl.usd": [-0.1],
    "provenance.retriever.training.rl.changed": [{}, "", 0, False],
    "slice_win_rate.short.rl_vs_baseline.loss": [-1, 0.5],
}


@pytest.mark.parametrize("figure", CONTRADICTIONS)
def test_a_figure_that_cannot_be_holds(model, figure):
    for value in CONTRADICTIONS[figure]:
        findings = judge(model, **{figure: value})
        assert verdict_of(list(findings.values())) == "HOLD", (value, findings)


def test_queries_are_those_that_decide(model):
    """Samples of held-out slices are evaluated, and decide nothing; the judge is not asked about them either."""
    few = comparison(win=20, tie=4, loss=1)
    judged = {"win": 20, "tie": 2, "loss": 3, "rate": 0.87, "ci95": [0.7, 0.97], "corrected": None}
    changes = {"win_rate.rl_vs_baseline": few, "systems.rl.n": 25, "judge.win_rate.rl_vs_baseline": judged}
    findings = judge(model, **changes)
    assert findings["queries"].outcome == "hold" and "25 queries compared" in findings["queries"].reason
    assert findings["judge_win_rate against baseline"].outcome == "pass"


def test_too_many_lost_queries_hold(model):
    findings = judge(model, **{"provenance.counts.abstained": 20})
    assert findings["queries"].outcome == "hold" and "20 left out" in findings["queries"].reason


@pytest.mark.parametrize(
    "damage", [{"ci95": ["a", "b"]}, {"win": None}, {"difference": {"mrr@10": None, "ci95": None}}]
)
def test_a_damaged_comparison_holds_from_either_side(model, damage):
    entry = comparison() | damage
    for name in ("rl_vs_baseline", "baseline_vs_rl"):
        finding = judge(model, **{"win_rate": {name: entry}})["win_rate against baseline"]
        assert finding.outcome == "hold" and {"rl", "baseline"} <= set(re.findall("rl|baseline", finding.reason))


def test_a_comparison_written_the_other_way_round_counts_the_same(model, tmp_path):
    other = write_model(tmp_path / "old", "old")
    metrics = evaluation({"rl": model, "old": other})
    metrics["win_rate"]["old_vs_rl"] = comparison(win=20, loss=60)
    del metrics["win_rate"]["rl_vs_old"]
    findings = {
        f.rule: f.outcome for f in check_rules(Evidence(metrics), Candidate("rl", champion="old", alarms=SILENT), ASKED)
    }
    assert findings["win_rate against old"] == "pass"
    turned = Evidence(metrics).pair("win_rate", a="rl", b="old")
    straight = comparison()
    assert (turned["win"], turned["loss"], turned["rate"]) == (60, 20, straight["rate"])
    # Other queries come first, so the resamples differ a little.
    assert turned["ci95"] == pytest.approx(straight["ci95"], abs=0.02)
    assert turned["difference"]["mrr@10"] == pytest.approx(straight["difference"]["mrr@10"])
    assert turned["difference"]["ci95"] == pytest.approx(straight["difference"]["ci95"], abs=0.02)


def test_a_rule_that_is_off_says_so(model):
    findings = judge(model, PromotionSettings(cost_per_1000_usd=None, audit=False), **{"cost_per_1000.rl.usd": None})
    assert findings["cost_per_1000_usd"].outcome == findings["audit"].outcome == "off"
    assert verdict_of(list(findings.values())) == "PROMOTE"


def test_the_audit_of_the_training_run_decides(tmp_path, model, capsys):
    # No run at all: hold. A run whose rewrites became keyword lists: reject.
    alone = write_model(tmp_path / "alone", "alone")
    assert main(options(tmp_path, alone)) == 1
    assert "no audit" in capsys.readouterr().out and decisions(tmp_path)[-1]["verdict"] == "HOLD"
    hacked = (
        make_rollout(number, step, rewrite="鱼油 " * 12, rank=1, baseline_rank=1, plain_rank=1)
        for step in range(11, 21)
        for number in range(120)
    )
    run = write_run(tmp_path / "hacked", [*healthy_run(steps=10), *hacked])
    assert main([*options(tmp_path, alone), "--training-run", str(run)]) == 1
    assert decisions(tmp_path)[-1]["verdict"] == "REJECT" and "reward.audit raises" in capsys.readouterr().out
    short = write_run(tmp_path / "short", healthy_run(steps=1))
    assert main([*options(tmp_path, alone), "--training-run", str(short)]) == 1
    assert "too few rollouts" in capsys.readouterr().out and champion(tmp_path) is None


def test_force_needs_a_reason_and_is_marked(tmp_path, model, capsys):
    held = options(tmp_path, model, **{"cost_per_1000.rl.usd": None})
    assert main([*held, "--force"]) == 2
    assert "needs --reason" in capsys.readouterr().err and champion(tmp_path) is None
    assert main([*held, "--force", "--reason", "our own GPUs"]) == 0
    assert "PROMOTE (forced)" in capsys.readouterr().out
    decision = decisions(tmp_path)[-1]
    assert (decision["by_rules"], decision["forced"], decision["reason"]) == ("HOLD", True, "our own GPUs")


def test_a_broken_safety_floor_cannot_be_forced(tmp_path, model, capsys):
    unsafe = options(tmp_path, model, **{"judge.systems.rl.intent_kept": 3.0})
    assert main([*unsafe, "--force", "--reason", "it sells"]) == 1
    assert "cannot be forced" in capsys.readouterr().out and champion(tmp_path) is None


def test_a_champion_that_breaks_a_rule_is_rolled_back(tmp_path, model, capsys):
    tenant = write_tenant(tmp_path, audit=False)

    def promote(folder: Path, others: dict[str, Path], **changes) -> int:
        run = write_evaluation(tmp_path / "evaluation", evaluation({"rl": folder, **others}, **changes))
        arguments = ["--tenant", str(tenant), "--run", str(run), "--model", str(folder)]
        return main([*arguments, "--registry", str(tmp_path / "registry")])

    first, second = write_model(tmp_path / "one", "one"), write_model(tmp_path / "two", "two")
    assert promote(first, {}) == 0
    # The champion was not compared: the newcomer waits.
    assert promote(second, {}) == 1
    assert "does not compare with the champion" in capsys.readouterr().out
    assert promote(second, {"old": first}) == 0
    assert champion(tmp_path)["version"] == "v2"
    # It passes again: nothing moves. It has become slow: back to v1.
    assert promote(second, {}) == 0 and "v2 is the champion and stays it" in capsys.readouterr().out
    assert promote(second, {}, **{"latency_ms.rl.p95": 9000.0}) == 1
    assert "ROLLBACK: v1 is the champion again" in capsys.readouterr().out
    assert champion(tmp_path)["version"] == "v1"
    # There is nothing before v1: it stays, and the decision says so.
    assert promote(first, {}, **{"latency_ms.rl.p50": 9000.0}) == 1
    assert "no earlier version is there" in capsys.readouterr().out and champion(tmp_path)["version"] == "v1"
    assert [d["verdict"] for d in decisions(tmp_path)] == [
        "PROMOTE",
        "HOLD",
        "PROMOTE",
        "PROMOTE",
        "ROLLBACK",
        "ROLLBACK",
    ]


def break_model(options: list[str], tmp_path: Path) -> None:
    options[options.index("--model") + 1] = str(write_model(tmp_path / "unknown", "never compared"))


def break_folder(options: list[str], tmp_path: Path) -> None:
    options[options.index("--model") + 1] = str(tmp_path / "nowhere")


def break_json(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "evaluation" / "metrics.json").write_text("{")


def break_shape(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "evaluation" / "metrics.json").write_text('{"provenance": {"models": {"rl": 3}}}')


def break_run(options: list[str], tmp_path: Path) -> None:
    options[options.index("--run") + 1] = str(tmp_path)


def break_tenant(options: list[str], tmp_path: Path) -> None:
    options[options.index("--tenant") + 1] = "chengla"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_model, "compares no model with the files of"),
        (break_folder, "no such model folder"),
        (break_json, "metrics.json: not JSON"),
        (break_shape, "names no models"),
        (break_run, "metrics.json: no such file"),
        (break_tenant, "is an evaluation of fivedoctors, not of chengla"),
    ],
)
def test_bad_input_is_one_line_and_decides_nothing(tmp_path, model, capsys, damage, message):
    arguments = options(tmp_path, model)
    damage(arguments, tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (tmp_path / "registry").exists()


def test_no_key_no_decision(tmp_path, model, capsys, monkeypatch):
    for value, message in ((None, "is not set"), ("short", "fewer than 16")):
        monkeypatch.delenv(KEY, raising=False)
        if value:
            monkeypatch.setenv(KEY, value)
        assert main(options(tmp_path, model)) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "registry").exists()
