"""The benchmark's own arithmetic, and one small run of everything it measures."""

import heapq
import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import reward_engine
from benchmarks.reward_runs.list_scheduling import Job, lower_bound
from benchmarks.reward_runs.loopback_services import loopback_services
from benchmarks.reward_runs.runs import engine_settings, in_process, run_engine
from benchmarks.reward_runs.sequential_reward import run_sequential_loop
from benchmarks.reward_runs.traffic import (
    GROUP_SIZE,
    JUDGE_SECONDS,
    PROMPTS,
    RAG_LIMIT,
    RAG_SECONDS,
    codes_in,
    computed_floor,
    judge_seconds,
    make_traffic,
    rag_seconds,
    unique_calls,
)

times = st.floats(0, 100, allow_nan=False)
some_jobs = st.lists(st.builds(Job, times, times), min_size=1, max_size=30)


def list_schedule(jobs: Sequence[Job], slots: int) -> float:
    """When the last job ends if each is begun, first come, first served, as soon as a slot is free.

    A schedule that can be had without knowing the future; it ends before twice the best possible time.
    """
    free = [0.0] * slots
    ends = 0.0
    for job in sorted(jobs, key=lambda job: job.arrival):
        end = max(heapq.heappop(free), job.arrival) + job.duration
        heapq.heappush(free, end)
        ends = max(ends, end)
    return ends


@pytest.mark.parametrize(
    ("jobs", "slots", "bound"),
    [
        ([], 3, 0),
        ([Job(2, 5)], 3, 7),  # its own length
        ([Job(0, 1)] * 12, 3, 4),  # the work
        ([Job(0, 1)] + [Job(10, 1)] * 6, 3, 12),  # the work after an arrival
        ([Job(0, 1)] * 12 + [Job(3, 9)], 3, 12),
    ],
)
def test_lower_bound_of_known_cases(jobs, slots, bound):
    assert lower_bound(jobs, slots) == bound


@given(some_jobs, st.integers(1, 8))
def test_no_schedule_beats_the_bound_and_a_list_schedule_ends_before_twice_of_it(jobs, slots):
    bound, reached = lower_bound(jobs, slots), list_schedule(jobs, slots)
    assert bound <= reached * (1 + 1e-9)
    assert reached <= 2 * bound * (1 + 1e-9)


@given(some_jobs)
def test_on_one_slot_the_bound_is_reached(jobs):
    # One machine without idle time is optimal: after the last idle moment everything arrives later and runs on end.
    assert lower_bound(jobs, 1) == pytest.approx(list_schedule(jobs, 1))


def test_a_quarter_of_the_traffic_repeats_a_sibling():
    traffic = make_traffic(seed=3)
    groups = defaultdict(list)
    for arrival in traffic:
        groups[arrival.prompt].append(arrival.completion)
    assert len(groups) == PROMPTS and {len(group) for group in groups.values()} == {GROUP_SIZE}
    assert sum(len(set(group)) for group in groups.values()) == 0.75 * len(traffic)
    # No rewrite belongs to two prompts, and none is the baseline's.
    assert len(unique_calls(traffic)) == 0.75 * len(traffic) + PROMPTS
    assert len({arrival.sample.original_query for arrival in traffic}) == PROMPTS
    assert traffic[0].seconds == 0 and traffic == sorted(traffic, key=lambda arrival: arrival.seconds)


def test_traffic_is_seeded_and_scales():
    one, same, other, half = make_traffic(1), make_traffic(1), make_traffic(2), make_traffic(1, scale=0.5)
    assert one == same and one != other
    assert [a.seconds for a in half] == pytest.approx([a.seconds / 2 for a in one])
    assert computed_floor(half, 1, 0.5) == pytest.approx(computed_floor(one, 1, 1.0) / 2)


def test_a_call_is_wanted_when_its_first_rollout_is_there():
    traffic = make_traffic(0)
    wanted = unique_calls(traffic)
    for prompt in range(PROMPTS):
        group = [arrival for arrival in traffic if arrival.prompt == prompt]
        [baseline] = codes_in(group[0].sample.candidates.baseline)
        assert wanted[baseline] == min(arrival.seconds for arrival in group)
        [code] = codes_in(group[-1].completion)
        assert wanted[code] <= group[-1].seconds


def test_latencies_have_the_means_they_should():
    codes = list(unique_calls(make_traffic(0, prompts=1000)))
    assert fmean(judge_seconds(0, code) for code in codes) == pytest.approx(JUDGE_SECONDS, rel=0.05)
    assert fmean(rag_seconds(0, code) for code in codes) == pytest.approx(RAG_SECONDS, rel=0.05)


@pytest.mark.parametrize(("mode", "least", "most"), [("pointwise", 28, 28), ("batched", 4, 27)])
def test_every_unique_text_is_paid_for_once(tmp_path, mode, least, most):
    scale = 0.02
    traffic = make_traffic(seed=0, scale=scale, prompts=4)
    assert len(unique_calls(traffic)) == 28 and len(traffic) == 32
    with loopback_services(seed=0, scale=scale) as services:
        settings = engine_settings(tmp_path, services, mode, scale)
        run = in_process(run_engine, settings, tmp_path, services, traffic, progress=lambda scored: None)
        assert run_sequential_loop(services.judge.url, services.rag.url, traffic[:2], lambda done: None) > 0
        assert [counts.requests for counts in services.take_counts()] == [4, 4]
    assert run.rag.requests == 28 and least <= run.judge.requests <= most
    assert run.rag.offered <= RAG_LIMIT and run.seconds >= computed_floor(traffic, 0, scale)


@pytest.mark.full
def test_the_command_prints_its_metrics(capsys):
    assert reward_engine.main(["--scale", "0.02", "--prompts", "4", "--soak", "6000"]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(out.splitlines()[-1])
    assert metrics["paid_calls_over_unique"] == 1.0 and metrics["rag_calls_over_unique"] == 1.0
    assert 1 / 7 <= metrics["paid_calls_over_unique_coalesced"] < 1
    assert metrics["wall_over_floor"] >= 1
    # verl's managers call twice for each of 32 rollouts.
    assert "32 rollouts, 28 texts" in out and out.count(" 64 ") >= 4
