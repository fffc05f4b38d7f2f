"""The scorer against a real HTTP service with injected faults."""

import asyncio

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from reward.engine import RewardEngine
from reward.records.files import BadInput
from reward.records.outcome import Abstained, AbstainReason, Gated, Scored
from reward.records.sample import Candidates, Metadata, Sample
from reward.rollouts.rollout_log import read_rollouts
from reward.scorer import Scorer
from reward.services.rag_client import RagClient
from reward.settings.recipe import RewriterSettings
from tests.support.asgi_server import AsgiServer

LEDGER = {"path": "ledger.sqlite", "run_id": "test"}
CORPUS = ["鱼油 用法用量", "鱼油 保质期", "钙片 用法用量"]


class LoopbackRag:
    """Ranks CORPUS by shared characters; `faults` holds what the next answers are to be."""

    def __init__(self):
        self.requests: list[dict] = []
        self.faults: list[str] = []
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request):
            body = await request.json()
            self.requests.append(body)
            fault = self.faults.pop(0) if self.faults else ""
            if fault.isdigit():
                return PlainTextResponse("no", status_code=int(fault))
            if fault == "html":
                return PlainTextResponse("<html></html>")
            if fault == "no recall":
                return {"data": {}}
            if fault == "bad hit":
                return {"data": {"recall": ["text"]}}
            await asyncio.sleep(2.0 if fault == "slow" else 0.02)
            wanted = set(body["rewritten_query"])
            ranked = sorted(range(len(CORPUS)), key=lambda i: -len(wanted & set(CORPUS[i])))
            hits = [
                {"content": CORPUS[i], "score": 1.0, "reranker_score": 0.9 - 0.1 * i, "doc_id": str(i)} for i in ranked
            ]
            return {"data": {"recall": hits}}

        server = AsgiServer(app, log_level="critical", timeout_graceful_shutdown=0)
        self.url, self.close = server.url, server.close


@pytest.fixture
def rag():
    service = LoopbackRag()
    yield service
    service.close()


@pytest.fixture(autouse=True)
def ledger(tmp_path, monkeypatch):
    """Every test has a ledger of its own."""
    monkeypatch.chdir(tmp_path)


def settings(url: str, **reward) -> RewriterSettings:
    rag_settings = {"url": url, "attempts": 3, "backoff": (0.01, 0.02), "timeout": 0.5}
    tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "p", "rag": rag_settings}
    return RewriterSettings.model_validate({"tenant": tenant, "reward": reward, "ledger": LEDGER})


def sample(query: str = "鱼油咋吃", baseline: str = "鱼油 保质期", relevant: tuple[str, ...] = ("0",)) -> Sample:
    return Sample(
        sample_id="fivedr_rl_001",
        original_query=query,
        metadata=Metadata(tenant_id="t"),
        candidates=Candidates(baseline=baseline),
        relevant_doc_ids=relevant,
    )


def score(rag, *pairs, **reward):
    async def run():
        scorer = Scorer(settings(rag.url, **reward))
        try:
            return await asyncio.gather(*(scorer.score(s, text, step=1) for s, text in pairs))
        finally:
            await scorer.aclose()

    return asyncio.run(run())


def test_a_better_rewrite_earns_more_than_a_worse_one(rag):
    better, worse = score(rag, (sample(), "鱼油 用法用量"), (sample(), "鱼油 保质期"))
    assert isinstance(better.rollout.outcome, Scored) and isinstance(worse.rollout.outcome, Scored)
    assert better.rollout.outcome.parts.policy_rank == 1
    assert better.rollout.outcome.reward == 0.0 > worse.rollout.outcome.reward  # the plain query finds it first, too


def test_formula_v2_compares_with_the_baseline_alone(rag):
    better, worse = score(rag, (sample(), "鱼油 用法用量"), (sample(), "鱼油 保质期"), formula="v2")
    assert better.rollout.outcome.reward > worse.rollout.outcome.reward == 0.0 and len(rag.requests) == 2


def test_identical_work_is_done_once_even_in_flight(rag):
    results = score(rag, *[(sample(), "鱼油 用法用量")] * 8)
    assert len(rag.requests) == 3  # the rewrite, the baseline and the plain query
    sources = [answer.source for result in results for answer in result.answers]
    assert sources.count("made") == 3 and sources.count("joined") == 21


def test_a_later_run_asks_nothing_again(rag):
    score(rag, (sample(), "鱼油 用法用量"))
    (again,) = score(rag, (sample(), "鱼油 用法用量"))
    assert len(rag.requests) == 3 and [answer.source for answer in again.answers] == ["stored"] * 3
    assert isinstance(again.rollout.outcome, Scored) and again.rollout.policy.rank == 1


def test_another_prompt_with_the_same_rewrite_is_other_work(rag):
    # The reranker reads the original query: the same rewrite scores differently for another prompt.
    # Both samples carry the same id, as the first rows of two exports do.
    score(rag, (sample("鱼油咋吃"), "鱼油 用法用量"), (sample("鱼油吃多少"), "鱼油 用法用量"))
    assert len(rag.requests) == 6


def test_the_service_is_asked_for_depth_without_threshold(rag):
    score(rag, (sample(), "鱼油 用法用量"))
    assert {(r["top_k"], r["score_threshold"], r["query"]) for r in rag.requests} == {(100, 0.0, "鱼油咋吃")}


@pytest.mark.parametrize("fault", ["503", "429", "500", "slow"])
def test_passing_trouble_is_retried(rag, fault):
    rag.faults = [fault]
    (result,) = score(rag, (sample(), "鱼油 用法用量"))
    assert isinstance(result.rollout.outcome, Scored)


@pytest.mark.parametrize("fault", ["503", "html", "no recall", "bad hit", "404", "401"])
def test_a_lasting_failure_abstains_and_is_never_a_score(rag, fault):
    rag.faults = [fault] * 20
    (result,) = score(rag, (sample(), "鱼油 用法用量"))
    assert isinstance(result.rollout.outcome, Abstained) and result.rollout.outcome.reason == AbstainReason.RAG
    assert result.rollout.outcome.detail


def test_a_failed_retrieval_is_not_remembered(rag):
    async def run():
        scorer = Scorer(settings(rag.url))
        rag.faults = ["404", "404"]
        first = await scorer.score(sample(), "鱼油 用法用量", step=1)
        second = await scorer.score(sample(), "鱼油 用法用量", step=1)
        await scorer.aclose()
        return first.rollout.outcome, second.rollout.outcome

    first, second = asyncio.run(run())
    assert isinstance(first, Abstained) and isinstance(second, Scored)


def test_a_missing_baseline_abstains(rag):
    (result,) = score(rag, (sample(baseline=""), "鱼油 用法用量"))
    assert isinstance(result.rollout.outcome, Abstained) and result.rollout.outcome.reason == AbstainReason.BASELINE
    assert rag.requests == []


def test_a_gated_rewrite_costs_no_call(rag):
    (result,) = score(rag, (sample(), ""))
    assert isinstance(result.rollout.outcome, Gated) and rag.requests == []


def test_v1_has_no_gates_and_an_empty_rewrite_finds_nothing(rag):
    (result,) = score(rag, (sample(), ""), formula="v1")
    assert isinstance(result.rollout.outcome, Scored) and result.rollout.outcome.reward < 0 and len(rag.requests) == 1


def test_without_qrels_the_reranker_decides(rag):
    (result,) = score(rag, (sample(relevant=()), "鱼油 用法用量"))
    assert isinstance(result.rollout.outcome, Scored) and result.rollout.outcome.parts.policy_rank is None
    assert result.rollout.outcome.parts.versus_baseline > 0 and result.rollout.outcome.reward == 0


def test_unreachable_service_abstains():
    class Nowhere:
        url = "http://127.0.0.1:9"

    (result,) = score(Nowhere, (sample(), "鱼油 用法用量"))
    assert isinstance(result.rollout.outcome, Abstained) and "Connect" in result.rollout.outcome.detail


def test_a_missing_api_key_is_named_not_printed(monkeypatch, rag):
    monkeypatch.delenv("RAG_KEY_OF_TEST", raising=False)
    bad = settings(rag.url).tenant.rag.model_copy(update={"api_key_env": "RAG_KEY_OF_TEST"})
    with pytest.raises(BadInput, match="RAG_KEY_OF_TEST"):
        RagClient(bad, "t")


def test_shaping_goes_on_from_what_the_run_has_logged(rag, tmp_path):
    shaped = settings(rag.url, formula="v1", adaptive_shaping=True)

    async def run(step: int, times: int) -> list[dict]:
        engine = RewardEngine(shaped, tmp_path)
        try:
            return [await engine.score(sample(), "鱼油 用法用量", step) for _ in range(times)]
        finally:
            await engine.aclose()

    asyncio.run(run(5000, 3))
    resumed = RewardEngine(shaped, tmp_path)
    rewards = [rollout.outcome.reward for rollout in read_rollouts(tmp_path)]
    assert len(rewards) == 3

    async def first() -> None:
        await resumed.score(sample(), "鱼油 保质期", 5001)
        await resumed.aclose()

    asyncio.run(first())
    assert list(resumed._scorer.task._shaping._recent)[:3] == pytest.approx(rewards)
