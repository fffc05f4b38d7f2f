"""Assignment, interleaving, rates and sequential looks: pure; and the analysis of a log that the drop-in wrote."""

import json
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from fastapi import Body, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from export.analyse_experiment import main as analyse_experiment
from export.experiments.rates import (
    Rate,
    difference_interval,
    rate_interval,
    ratio_p_value,
    smallest_effect,
    users_needed,
)
from export.experiments.sequential import event_share_interval, is_above, log_evidence, prior_strength, rate_ratio
from export.serving.app import create_app
from export.serving.assignment import is_chosen, position
from export.serving.interleaving import credit, team_draft
from export.serving.settings import ServingSettings
from tests.support.asgi_server import AsgiServer
from tests.support.loopback_llm import loopback_llm

# Assignment


def test_assignment_is_uniform_sticky_and_independent_between_tests():
    users = [f"u{number}" for number in range(5000)]
    places = [position("spring", user) for user in users]
    assert places == [position("spring", user) for user in users]
    assert kstest(places, "uniform").pvalue > 0.01
    other = [position("summer", user) for user in users]
    assert abs(np.corrcoef(places, other)[0, 1]) < 0.05
    # Who is chosen stays so when the share grows.
    assert all(is_chosen("spring", user, 0.5) for user in users if is_chosen("spring", user, 0.1))
    assert not any(is_chosen("spring", user, 0.0) for user in users) and all(is_chosen("s", u, 1.0) for u in users)


# Interleaving

ranking = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=8)


@given(ranking, ranking, st.integers(0, 10), st.text(max_size=5))
def test_an_interleaved_list_is_fair_and_whole(a, b, length, seed):
    drafted = team_draft(a, b, length, seed)
    documents = [one.document for one in drafted]
    assert len(set(documents)) == len(documents) == min(length, len({*a, *b}))
    for team, own in (("a", a), ("b", b)):
        picked = [one.document for one in drafted if one.team == team]
        assert picked == sorted(picked, key=own.index)  # in the team's own order
    # While both have something left, neither is ahead by more than one.
    for end in range(len(drafted)):
        counts = Counter(one.team for one in drafted[:end])
        left = [[d for d in own if d not in documents[:end]] for own in (a, b)]
        if all(left):
            assert abs(counts["a"] - counts["b"]) <= 1
    assert drafted == team_draft(a, b, length, seed)


def test_equal_lists_have_no_winner_in_the_long_run():
    same = list("abcde")
    credits = [credit(team_draft(same, same, 5, str(seed)), {"a"}) for seed in range(2000)]
    assert abs(sum(credits)) < 150 and set(credits) == {1, -1}


def test_clicks_are_credited_to_the_team_that_picked():
    drafted = team_draft(["x", "y"], ["z", "y"], 3, "seed")
    team = {one.document: one.team for one in drafted}
    assert team["x"] == "a" and team["z"] == "b"
    assert credit(drafted, {"x"}) == 1 and credit(drafted, {"z"}) == -1 and credit(drafted, {"x", "z"}) == 0
    assert credit(drafted, {"nowhere"}) == 0


# Rates


def test_intervals_of_rates_and_differences():
    # Newcombe 1998, table II, row (a): 56/70 − 48/80.
    low, high = difference_interval(Rate(48, 80), Rate(56, 70))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)
    assert rate_interval(Rate(0, 0)) == (0.0, 1.0) and difference_interval(Rate(0, 0), Rate(1, 2)) == (-1.0, 1.0)


@pytest.mark.parametrize(("base", "effect", "share"), [(0.05, 0.01, 0.5), (0.3, -0.03, 0.5), (0.1, 0.02, 0.2)])
def test_the_planned_users_have_the_planned_power(base, effect, share):
    control, treatment = users_needed(base, effect, share)
    assert treatment / (control + treatment) == pytest.approx(share, abs=1e-3)
    rng = np.random.default_rng(0)
    c, t = rng.binomial(control, base, 4000) / control, rng.binomial(treatment, base + effect, 4000) / treatment
    pooled = (c * control + t * treatment) / (control + treatment)
    z = (t - c) / np.sqrt(pooled * (1 - pooled) * (1 / control + 1 / treatment))
    assert np.mean(np.abs(z) > norm.ppf(0.975)) == pytest.approx(0.8, abs=0.025)
    if effect > 0:
        assert smallest_effect(base, control, treatment) == pytest.approx(effect, rel=0.01)


def test_no_plan_without_an_effect():
    for base, effect in ((0.5, 0.0), (0.0, 0.1), (0.95, 0.1)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            users_needed(base, effect)


def test_a_broken_split_is_found_and_a_fair_one_is_not():
    assert ratio_p_value([5000, 5001], [0.5, 0.5]) > 0.9
    assert ratio_p_value([8950, 1050], [0.9, 0.1]) > 0.05
    assert ratio_p_value([5200, 4800], [0.5, 0.5]) < 0.001
    assert ratio_p_value([0, 0], [0.5, 0.5]) == 1.0


# Looks


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_thousand_tests_of_equals_looked_at_always_are_rarely_decided(share):
    """After every event, from the first one: the sides are wrong in 2.5 % of the tests each, at most."""
    rng = np.random.default_rng(1)
    ours = np.cumsum(rng.random((1000, 1000)) < share, axis=1)
    theirs = np.arange(1, 1001) - ours
    above = is_above(ours, theirs, share, prior_strength(share, 0.5)).any(axis=1)
    below = is_above(theirs, ours, 1 - share, prior_strength(share, 0.5)).any(axis=1)
    assert above.mean() <= 0.025 and below.mean() <= 0.025
    assert above.mean() + below.mean() > 0  # it does look


def test_the_evidence_is_a_martingale_of_mean_one():
    from scipy.stats import binom

    counts = np.arange(41)
    evidence = np.exp(log_evidence(counts, 40 - counts, 0.3, 0.3, 50.0))
    assert np.sum(binom.pmf(counts, 40, 0.3) * evidence) == pytest.approx(1.0, rel=1e-6)


def test_intervals_hold_what_is_true_and_narrow_with_the_events():
    assert event_share_interval(0, 0, 0.5, 100) == (0.0, 1.0)
    low, high = event_share_interval(50, 0, 0.5, 100)
    assert 0.5 < low < 1 and high == 1.0
    assert event_share_interval(0, 50, 0.5, 100) == pytest.approx((0.0, 1 - low), abs=1e-6)
    wide, narrow = event_share_interval(60, 60, 0.5, 400), event_share_interval(6000, 6000, 0.5, 400)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert rate_ratio(0.5, 0.5) == 1 and rate_ratio(0.1, 0.1) == pytest.approx(1)
    # The interval leaves the equal share out exactly when the look decides.
    for ours in range(90, 150):
        strength = prior_strength(0.5, 0.2)
        assert (event_share_interval(ours, 90, 0.5, strength)[0] > 0.5) == is_above(ours, 90, 0.5, strength)


# The analysis of a log


def write_log(folder, users=2000, share=0.5, lift=1.0, rate=0.2, seed=0):
    """A log of users with one answer each, and events of those who convert; the treatment's rate is `lift` times."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(users):
        day = f"2026-11-{1 + number * 20 // users:02d}T10:00:00.000+00:00"
        arm = "32b" if rng.random() < share else "8b"
        fact = {"at": day, "tenant_id": "fivedoctors"}
        answer = {"kind": "answer", **fact, "request_id": f"r{number}", "experiment": "spring"}
        answer |= {"control": "8b", "treatment": "32b", "share": share}
        answer |= {"arm": arm, "unit": f"unit{number}", "keyed": True, "ms": 100.0, "cut": False}
        answer |= {"source": arm, "failure": "", "version": "v1"}
        lines.append(answer)
        if rng.random() < rate * (lift if arm == "32b" else 1):
            event = {"kind": "event", **fact, "event": "conversion", "unit": f"unit{number}", "doc_id": ""}
            lines.append({**event, "request_id": ""})
    with (folder / "outcomes_2026-11-01.jsonl").open("w") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    return lines


def analyse(folder, *options):
    out = folder / "found.json"
    arguments = ["--log", str(folder), "--tenant", "fivedoctors", "--experiment", "spring"]
    assert analyse_experiment([*arguments, "--out", str(out), *options]) == 0
    return json.loads(out.read_text())


def test_a_better_arm_is_found_with_its_numbers(tmp_path):
    lines = write_log(tmp_path, users=8000, lift=1.4)
    ab = analyse(tmp_path, "--lift", "0.3")["ab"]
    answers = [line for line in lines if line["kind"] == "answer"]
    assert ab["arms"]["32b"]["n"] == sum(line["arm"] == "32b" for line in answers)
    had = {line["unit"] for line in lines if line["kind"] == "event"}
    assert ab["arms"]["8b"]["successes"] == sum(line["arm"] == "8b" and line["unit"] in had for line in answers)
    assert ab["difference"]["ci95"][0] > 0 and ab["sequential"]["winner"] == "treatment"
    assert ab["sequential"]["decided_on"] < "2026-11-20" and ab["verdict"].startswith("32b is better")
    assert not ab["sample_ratio"]["mismatch"] and ab["sequential"]["ci95"][0] > 1


def test_equal_arms_are_undecided(tmp_path):
    write_log(tmp_path)
    ab = analyse(tmp_path)["ab"]
    assert ab["sequential"]["winner"] is None and ab["verdict"].startswith("undecided")
    assert ab["plan"]["users_needed"] > ab["plan"]["users"]


def test_a_broken_split_is_the_verdict(tmp_path):
    lines = write_log(tmp_path, users=6000)
    kept = [line for n, line in enumerate(lines) if line["kind"] == "event" or line["arm"] == "8b" or n % 5]
    (tmp_path / "outcomes_2026-11-01.jsonl").write_text("\n".join(map(json.dumps, kept)))
    assert "did not get their shares" in analyse(tmp_path)["ab"]["verdict"]


def test_what_cannot_count_is_left_out_and_counted(tmp_path, capsys):
    lines = write_log(tmp_path, users=200)
    first = next(line for line in lines if line["kind"] == "answer")
    twice = {**first, "arm": "8b" if first["arm"] == "32b" else "32b", "request_id": "again"}
    earlier = {**first, "unit": "old", "share": 0.1, "request_id": "old"}
    nobody = {"kind": "event", "at": first["at"], "tenant_id": "fivedoctors", "event": "conversion"}
    nobody |= {"request_id": "x", "unit": "", "doc_id": ""}
    others = {**first, "tenant_id": "zlkt", "unit": "z"}
    text = "\n".join(json.dumps(line) for line in [earlier, *lines, twice, nobody, others]) + '\n{"kind": "ans'
    (tmp_path / "outcomes_2026-11-01.jsonl").write_text(text)
    found = analyse(tmp_path)
    assert found["left_out"] == {
        "broken lines of the log": 1,
        "users of two arms": 1,
        "users first seen under another split": 1,
        "events of nobody in this test": 1 + (first["unit"] in {x["unit"] for x in lines if x["kind"] == "event"}),
    }
    assert "left out: 1 users of two arms" in capsys.readouterr().out


def test_events_of_a_file_join_by_request_and_by_user(tmp_path):
    with loopback_llm(rewrite=lambda body: {"rewritten_query": "大"}) as url:
        served = {
            "answer": "8b",
            "rewriters": {"8b": {"chat_url": str(url), "max_new_tokens": 8}, "32b": {"url": url.removesuffix("/v1")}},
            "experiment": {"name": "spring", "arm": "32b", "share": 0.5},
        }
        settings = {"tenants": {"fivedoctors": served}, "log": str(tmp_path)}
        with (
            AsgiServer(create_app(ServingSettings.model_validate(settings))) as server,
            httpx.Client(base_url=server.url, trust_env=False) as client,
        ):
            for number in range(20):
                body = {"query": "怎么吃", "tenant_id": "fivedoctors", "user_id": f"李{number}"}
                client.post("/api/rewrite_query", json=body, headers={"X-Request-Id": f"r{number}"})
    today = datetime.now(UTC).date()
    rows = [
        "李3,,",
        ",r4,",
        "王,,",
        "李5,,2020-01-01T10:00:00",
        f"李6,,{today}",
        "李7,,2999-01-01 10:00",
        "李8,,2020-01-01",
    ]
    (tmp_path / "sold.csv").write_text(
        "\n".join(["event,user_id,request_id,at", *(f"conversion,{row}" for row in rows)])
    )
    found = analyse(tmp_path, "--events", str(tmp_path / "sold.csv"))
    assert sum(arm["successes"] for arm in found["ab"]["arms"].values()) == 4
    assert found["left_out"] == {"events of nobody in this test": 1, "events before the user's first answer": 2}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--experiment", "autumn"], "no test 'autumn'"),
        (["--log", "nowhere"], "no outcome log"),
        (["--events", "x.xlsx"], "expected a .csv or .jsonl"),
        (["--events", "missing.csv"], "no such file"),
        (["--events", "late.csv"], "row 2: at: 'gestern'"),
    ],
)
def test_what_cannot_be_analysed_is_one_line(tmp_path, capsys, options, told):
    write_log(tmp_path, users=20)
    (tmp_path / "late.csv").write_text("event,user_id,at\nconversion,u,gestern\n")
    (tmp_path / "unit.key").write_text("00" * 32)
    options = [str(tmp_path / one) if one == "late.csv" else one for one in options]
    arguments = ["--log", str(tmp_path), "--tenant", "fivedoctors", "--experiment", "spring"]
    assert analyse_experiment([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_a_plan_needs_a_base_rate(capsys):
    assert analyse_experiment(["--plan", "--base-rate", "0.05", "--lift", "0.1"]) == 0
    assert "62,468 users" in capsys.readouterr().out.replace("\n", " ")
    assert analyse_experiment(["--plan"]) == 2 and analyse_experiment(["--plan", "--base-rate", "2"]) == 2


# Interleaving through the drop-in


@contextmanager
def retrieval_service(answer):
    app = FastAPI()

    @app.post("/api/chat/general_rag")
    def general_rag(body: dict = Body()):  # noqa: B008
        return answer(body)

    with AsgiServer(app) as server:
        yield server


def test_two_rewrites_retrieve_and_clicks_decide(tmp_path):
    passages = {"好": ["d1", "d2", "d3"], "差": ["d7", "d8", "d1"]}

    def recall(body):
        hits = [{"content": f"内容 {d}", "score": 1.0, "doc_id": d} for d in passages[body["rewritten_query"]]]
        return {"data": {"recall": hits[: body["top_k"]], "rewritten_query": body["rewritten_query"]}}

    tenant = tmp_path / "tenant.yaml"
    with (
        retrieval_service(recall) as rag,
        loopback_llm(lambda body: "差", rewrite=lambda body: {"rewritten_query": "好"}) as url,
    ):
        tenant.write_text(f"tenant_id: shop\nshort_id: s\nsystem_prompt: 专家\nrag: {{url: '{rag.url}'}}\n")
        served = {
            "tenant": str(tenant),
            "answer": "8b",
            "rewriters": {"8b": {"chat_url": str(url), "max_new_tokens": 8}, "32b": {"url": url.removesuffix("/v1")}},
            "interleave": {"name": "draft", "rewriter": "32b"},
        }
        settings = ServingSettings.model_validate({"tenants": {"shop": served}, "log": str(tmp_path / "log")})
        with AsgiServer(create_app(settings)) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
            for number in range(40):
                body = {"query": "怎么吃", "tenant_id": "shop", "session_id": f"s{number}", "top_k": 3}
                named = {"X-Request-Id": f"r{number}"}  # it decides the coins
                answer = client.post("/api/chat/general_rag", json=body, headers=named)
                shown = [hit["doc_id"] for hit in answer.json()["data"]["recall"]]
                assert len(shown) == 3 and {"d1", "d7"} <= set(shown) and "team" not in answer.text
                if "d2" in shown:  # this one helps people
                    click = {"event": "click", "request_id": answer.headers["x-request-id"], "doc_id": "d2"}
                    assert client.post("/api/outcome", json=click).status_code == 204
            # A body that brings its rewrite is retrieved with it.
            given = client.post("/api/chat/general_rag", json={**body, "rewritten_query": "好"})
            assert [hit["doc_id"] for hit in given.json()["data"]["recall"]] == ["d1", "d2", "d3"]
    out = tmp_path / "found.json"
    arguments = ["--log", str(tmp_path / "log"), "--tenant", "shop", "--experiment", "draft", "--out", str(out)]
    assert analyse_experiment(arguments) == 0
    found = json.loads(out.read_text())["interleaving"]
    assert found["impressions"] == 40 and (found["a"], found["b"]) == ("8b", "32b")
    assert found["wins_b"] > 10 and found["wins_a"] == 0 and found["wins_b"] + found["ties"] == 40
    assert found["sign_test_p"] < 0.01 and found["sequential"]["winner"] == "treatment"
    assert found["verdict"].startswith("32b is better")


def test_a_retrieval_service_that_fails_is_said(tmp_path):
    with retrieval_service(lambda body: {"data": None}) as rag, loopback_llm() as url:
        tenant = tmp_path / "tenant.yaml"
        tenant.write_text(f"tenant_id: shop\nshort_id: s\nsystem_prompt: 专家\nrag: {{url: '{rag.url}'}}\n")
        served = {
            "tenant": str(tenant),
            "answer": "8b",
            "rewriters": {"8b": {"chat_url": str(url), "max_new_tokens": 8}},
        }
        settings = ServingSettings.model_validate({"tenants": {"shop": served}, "log": str(tmp_path / "log")})
        with AsgiServer(create_app(settings)) as server:
            answer = httpx.post(f"{server.url}/api/chat/general_rag", json={"query": "怎么吃"}, trust_env=False)
    assert answer.status_code == 502 and "malformed" in answer.json()["detail"]
