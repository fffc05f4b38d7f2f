"""The canary: figures against known answers, and whole checks against a real server."""

import asyncio
import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from reward.canary import main
from reward.judge.agreement import JudgedPair, add_drift, cohen_kappa, confusion, kappa_interval, summarise
from reward.judge.canary import check_canary, read_pairs
from reward.judge.judge import Judge
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.files import BadInput, read_jsonl
from reward.settings.recipe import CanarySettings, JudgeSettings, LedgerSettings, load_tenant
from tests.support import ROOT
from tests.support.loopback_judge import BAD, FAIR, GOOD, LoopbackJudge

EXAMPLE = ROOT / "examples" / "fivedoctors" / "canary_pairs.jsonl"
LABELLED = [(GOOD, FAIR, "a"), (FAIR, GOOD, "b"), (BAD, GOOD, "b"), (FAIR, BAD, "a"), (BAD, "鱼油 保质期", "tie")]


@pytest.fixture
def server():
    judge = LoopbackJudge()
    yield judge
    judge.close()


@pytest.fixture
def pairs_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"pair_id": f"p{n}", "original_query": f"鱼油咋吃{n}", "rewrite_a": a, "rewrite_b": b, "preferred": label}
        for n, (a, b, label) in enumerate(LABELLED)
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def profile(url: str, **values) -> dict:
    price = {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12}
    return {"model": "m", "base_url": url, "price": price, "backoff": [0.01, 0.02], "attempts": 1, **values}


def check(server, pairs_file, tmp_path, *steps, **values) -> list[dict]:
    out = tmp_path / "run" / "canary.jsonl"
    settings = CanarySettings(file=pairs_file, drift=0.2)

    async def run():
        ledger = Ledger(LedgerSettings(path=tmp_path / "ledger.sqlite", run_id="r"))
        judge = Judge(
            JudgeSettings.model_validate(profile(server.url, **values)), load_tenant("fivedoctors"), 7.1, Calls(ledger)
        )
        try:
            for step in steps:
                await check_canary(judge, read_pairs(pairs_file), step, settings, out)
        finally:
            await judge.aclose()
            ledger.close()

    asyncio.run(run())
    return [line for _, line in read_jsonl(out)]


@pytest.mark.parametrize("mode", ["pointwise", "batched", "pairwise"])
def test_a_judge_that_agrees_with_people(server, pairs_file, tmp_path, mode):
    first, second = check(server, pairs_file, tmp_path, 1, 50, mode=mode, batching={"window": 0.05})
    assert first["agreement"] == first["kappa"] == first["kappa_low"] == first["kappa_high"] == 1
    assert (first["judged"], first["failed"], first["drift"], first["alarm"]) == (5, 0, None, False)
    assert (second["drift"], second["relabelled"], second["alarm"]) == (0, 0, False)
    assert second["overall_change"] == (None if mode == "pairwise" else 0)
    assert first["flipped"] == first["first_preference"] == (0 if mode == "pairwise" else None)
    # Every check is asked anew, at its price.
    assert len(server.requests) == {"pointwise": 20, "batched": 10, "pairwise": 20}[mode]
    assert second["cost"] == pytest.approx(first["cost"]) and first["cost"] > 0


def test_the_same_step_again_is_answered_from_the_ledger(server, pairs_file, tmp_path):
    first, again = check(server, pairs_file, tmp_path, 1, 1)
    assert first["judge"] == "m"
    assert len(server.requests) == 10 and again["cost"] == 0 and again["kappa"] == first["kappa"]


def test_a_judge_that_comes_to_prefer_a_place_has_drifted(server, pairs_file, tmp_path):
    check(server, pairs_file, tmp_path, 1, mode="pairwise")
    server.prefers_first = True
    _, now = check(server, pairs_file, tmp_path, 50, mode="pairwise")
    assert now["flipped"] == now["first_preference"] == 1  # in both orders the first one wins: every pair a tie
    assert now["agreement"] == pytest.approx(0.2) and now["kappa"] == 0
    assert now["drift"] == 1 and now["relabelled"] == pytest.approx(0.8) and now["alarm"]


def test_pairs_that_the_judge_fails_on_are_counted_not_guessed(server, pairs_file, tmp_path):
    server.faults = ["400"] * 2
    (first,) = check(server, pairs_file, tmp_path, 1, max_concurrency=1)
    assert first["judged"] + first["failed"] == 5 and first["failed"] in (1, 2) and first["agreement"] == 1
    server.faults = ["400"] * 10
    _, none = check(server, pairs_file, tmp_path, 2)
    assert none["judged"] == 0 and none["kappa"] is none["agreement"] is none["drift"] is None


def judged(*labels, **scores) -> list[JudgedPair]:
    return [JudgedPair(pair_id=str(n), preferred=a, judged=b, **scores) for n, (a, b) in enumerate(labels)]


def test_kappa_is_that_of_scikit_learn():
    random = np.random.default_rng(3)
    for _ in range(20):
        people, judge = random.choice(["a", "tie", "b"], size=(2, 30), p=[0.5, 0.2, 0.3])
        judge = np.where(random.random(30) < 0.6, people, judge)
        assert cohen_kappa(confusion(people, judge)) == pytest.approx(cohen_kappa_score(people, judge))
    assert np.isnan(cohen_kappa(confusion(["a"] * 3, ["a"] * 3)))


def test_the_interval_is_that_of_drawing_pairs_with_replacement():
    random = np.random.default_rng(4)
    people = random.choice(["a", "tie", "b"], size=60)
    judge = np.where(random.random(60) < 0.7, people, "a")
    low, high = kappa_interval(confusion(people, judge), seed=0)
    draws = random.integers(60, size=(2000, 60))
    drawn = [cohen_kappa(confusion(people[draw], judge[draw])) for draw in draws]
    assert [low, high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    assert kappa_interval(confusion(people, judge), seed=0) == (low, high)
    assert low < cohen_kappa(confusion(people, judge)) < high


def test_drift_is_over_the_pairs_judged_in_both_checks():
    before = [*judged(("a", "a"), ("b", "b"), score_a=4.0, score_b=3.0)]
    after = judged(("a", "b"), ("b", "b"), ("tie", "tie"), score_a=3.5, score_b=3.0)
    one, two = summarise("m", "pointwise", 1, before), summarise("m", "pointwise", 2, after)
    drifted = add_drift(two, after, one, before, limit=0.2)
    assert drifted.overall_change == 0.25 and drifted.relabelled == 0.5
    assert drifted.drift == pytest.approx(1 - two.kappa) and drifted.alarm
    assert not add_drift(two, after, one, before, limit=0.9).alarm
    assert add_drift(two, after, None, [], limit=0.2) == two


def test_the_example_pairs_are_readable_and_balanced():
    pairs = read_pairs(EXAMPLE)
    labels = [pair.preferred for pair in pairs]
    assert len(pairs) == 24 and labels.count("a") == labels.count("b") == 10
    assert {pair.origin for pair in pairs} == {"written for this repository"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "two different labels"),
        ("{", "row 1: not JSON"),
        ('{"pair_id": "p"}', "row 1: original_query: Field required"),
        ('{"pair_id": "p", "original_query": "q", "rewrite_a": "a", "rewrite_b": "b", "preferred": "c"}', "preferred"),
    ],
)
def test_a_bad_pairs_file_is_named_in_one_line(tmp_path, capsys, text, words):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text, encoding="utf-8")
    assert main(["--pairs", str(path), "--tenant", "fivedoctors", "--judge", "self_hosted"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(path) in error and words in error and error.count("\n") == 1


def test_a_pair_may_not_occur_twice(pairs_file):
    with pairs_file.open("a", encoding="utf-8") as out:
        out.write("\n" + pairs_file.read_text(encoding="utf-8").splitlines()[0])
    with pytest.raises(BadInput, match="p0 occurs twice"):
        read_pairs(pairs_file)


def test_by_hand(server, pairs_file, tmp_path, capsys):
    judge, out = tmp_path / "judge.yaml", tmp_path / "canary.jsonl"
    judge.write_text(json.dumps(profile(server.url)), encoding="utf-8")
    asked = ["--pairs", str(pairs_file), "--tenant", "fivedoctors", "--judge", str(judge), "--out", str(out)]
    asked += ["--mode", "pairwise"]
    assert main(asked) == 0
    assert "kappa" in capsys.readouterr().out and len(list(read_jsonl(out))) == 1
    server.prefers_first = True
    assert main(asked) == 1
    assert [line["alarm"] for _, line in read_jsonl(out)] == [False, True]
    assert main([*asked, "--judge", "nobody"]) == 2
    assert "known profiles: deepseek_v3, gpt5, self_hosted" in capsys.readouterr().err
