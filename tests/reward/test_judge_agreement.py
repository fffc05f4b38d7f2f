"""How far a judge's modes agree: figures against known answers, and the command against a real server."""

import json
import sqlite3

import pytest
from scipy.stats import spearmanr

from reward.judge.agreement import JudgedPair
from reward.judge.canary import CanaryPair
from reward.judge_agreement import compare_modes, main
from tests.support.loopback_judge import BAD, FAIR, GOOD, LoopbackJudge, grade

# The last two share a query: batched, their four rewrites share a call.
LABELLED = [("一", GOOD, FAIR, "a"), ("二", BAD, GOOD, "b"), ("三", BAD, "鱼油", "tie"), ("四", FAIR, BAD, "a")]
LABELLED += [("四", GOOD, FAIR, "a")]


@pytest.fixture
def server():
    judge = LoopbackJudge()
    yield judge
    judge.close()


@pytest.fixture
def command(server, tmp_path, capsys):
    """Runs the command; its exit code, and what it printed to stdout with blanks made one."""
    pairs, judge = tmp_path / "pairs.jsonl", tmp_path / "judge.yaml"
    rows = [
        {"pair_id": str(number), "original_query": query, "rewrite_a": a, "rewrite_b": b, "preferred": label}
        for number, (query, a, b, label) in enumerate(LABELLED)
    ]
    pairs.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    price = {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12}
    profile = {"model": "m", "base_url": server.url, "price": price, "backoff": [0.01, 0.02], "attempts": 1}
    judge.write_text(json.dumps({**profile, "batching": {"window": 0.2}}), encoding="utf-8")

    def run(*more):
        asked = ["--pairs", str(pairs), "--tenant", "fivedoctors", "--judge", str(judge)]
        code = main([*asked, "--ledger", str(tmp_path / "runs" / "ledger.sqlite"), *more])
        out = capsys.readouterr().out
        return code, " ".join(out.split())

    return run


def row(out: str, name: str) -> list[str]:
    """The cells of a printed table's row."""
    cells = out.split(f"│ {name} │")[1].split("│")
    return [cell.strip() for cell in cells]


def test_modes_that_agree(command, server):
    code, out = command()
    assert code == 0
    # 5 pairs of 2 rewrites, of which one stands in two pairs: 9 gradings; in one call a query: 4; both orders: 10.
    assert [row(out, mode)[2] for mode in ("pointwise", "batched", "pairwise")] == ["9", "4", "10"]
    assert len(server.requests) == 23
    assert row(out, "pointwise")[:7] == ["5", "0", "9", "9,000", "900", f"{9 * 0.0038:.4f}", "100.0%"]
    assert row(out, "batched")[3:6] == ["4,000", "400", f"{4 * 0.0038:.4f}"]
    assert row(out, "pointwise – batched")[:6] == ["5", "100.0%", "1.000", "9", "1.000", "0.000"]
    assert row(out, "pointwise – pairwise")[:6] == ["5", "100.0%", "1.000", "–", "–", "–"]


def test_nothing_is_paid_for_twice_and_its_price_is_still_shown(command, server):
    first = command()
    assert command() == first and len(server.requests) == 23


def test_a_judge_that_batched_sees_no_difference(command, server):
    together = server.verdicts
    server.verdicts = lambda data: (
        {"评分": {entry["编号"]: together({"改写": FAIR}) for entry in data["候选"]}}
        if "候选" in data
        else together(data)
    )
    code, out = command("--modes", "pointwise", "batched")
    assert code == 0 and "pairwise" not in out
    pairs, same, kappa, rewrites, spearman, difference = row(out, "pointwise – batched")[:6]
    assert (pairs, same, kappa, rewrites, spearman) == ("5", "20.0%", "0.000", "9", "–")  # the one tie
    texts = {(query, text) for query, a, b, _ in LABELLED for text in (a, b)}
    assert difference == f"{sum(abs(grade(text) - 3) for _, text in texts) / len(texts):.3f}"


def test_a_mode_that_fails_is_told_and_asked_again_the_next_time(command, server):
    server.faults = ["400"] * 9
    code, out = command("--modes", "pointwise", "pairwise")
    assert code == 1 and row(out, "pointwise")[:2] == ["0", "5"] and row(out, "pointwise – pairwise")[0] == "0"
    assert "pointwise failed, last with: HTTP 400" in out
    code, out = command("--modes", "pointwise", "pairwise")
    assert code == 0 and row(out, "pointwise")[:3] == ["5", "0", "18"] and "failed, last" not in out


def test_every_call_is_in_the_ledger(command, tmp_path):
    command("--modes", "batched", "pairwise")
    with sqlite3.connect(tmp_path / "runs" / "ledger.sqlite") as db:
        assert db.execute("SELECT DISTINCT run_id, kind, tenant FROM calls").fetchall() == [
            ("judge_agreement", "judge", "fivedoctors")
        ]


def test_one_mode_alone_and_bad_files_are_told_in_one_line(command, tmp_path, capsys):
    assert command("--modes", "batched", "batched")[0] == 2
    (tmp_path / "pairs.jsonl").write_text("{", encoding="utf-8")
    command()
    assert main(["--pairs", str(tmp_path / "none"), "--tenant", "fivedoctors", "--judge", "nobody"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "known profiles" in error and error.count("\n") == 1


def judged(label, a=None, b=None) -> JudgedPair:
    return JudgedPair(pair_id="p", preferred="a", judged=label, score_a=a, score_b=b)


def pair(query: str, a: str, b: str) -> CanaryPair:
    return CanaryPair(pair_id="p", original_query=query, rewrite_a=a, rewrite_b=b, preferred="a")


def test_the_figures_are_over_what_both_have_judged():
    pairs = [pair("q", "x", "y"), pair("q", "x", "z"), pair("r", "x", "y"), pair("s", "x", "y")]
    one = [judged("a", 4.0, 2.0), judged("tie", 4.0, 4.0), judged("b", 1.0, 3.5), judged(None)]
    other = [judged("a", 4.5, 2.0), judged("a", 4.5, 3.0), judged(None), judged("a", 5.0, 1.0)]
    agreed = compare_modes(pairs, one, other)
    assert (agreed.pairs, agreed.same_winner, agreed.rewrites) == (2, 0.5, 3)  # q: x, y, z
    assert agreed.difference == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert agreed.spearman == pytest.approx(spearmanr([4.0, 2.0, 4.0], [4.5, 2.0, 3.0]).statistic)
    assert compare_modes(pairs[:1], [judged("a", 4, 2)], [judged("a")]).spearman is None
    assert compare_modes(pairs[:1], [judged(None)], [judged("a")]).same_winner is None
