"""A rewrite in two texts: read, each gated, retrieved with both; any other text is left as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from reward.records.outcome import Gated, GateReason, Scored
from reward.records.rewrite_pair import RewritePair, read_pair, retrieval_fields, rewrite_in, texts_of, words_of
from reward.records.sample import Candidates, Metadata, Sample
from reward.rollouts.text_measures import fails_gates
from reward.scorer import Scorer, Scoring
from reward.services.baseline_client import BaselineClient
from reward.settings.recipe import RewriterSettings
from reward.settings.services import BaselineSettings
from tests.support.asgi_server import AsgiServer

PAIR = "lex: 鱼油 用法用量\nvec: 鱼油应该怎么吃"


@pytest.mark.parametrize(
    "text", [PAIR, "lex: 鱼油 用法用量 vec: 鱼油应该怎么吃", f"\n {PAIR} \n", PAIR.replace(": ", ":\t")]
)
def test_a_pair_is_read_from_two_lines_or_one(text: str) -> None:
    pair = read_pair(text)
    assert pair == RewritePair("鱼油 用法用量", "鱼油应该怎么吃") and pair.text == PAIR
    assert words_of(text) == "鱼油 用法用量 鱼油应该怎么吃" and texts_of(text) == ("鱼油 用法用量", "鱼油应该怎么吃")
    assert retrieval_fields(text) == {"rewritten_query": "鱼油应该怎么吃", "keyword_query": "鱼油 用法用量"}


@pytest.mark.parametrize(
    "text",
    [
        "鱼油 用法用量",
        "lex: 鱼油",
        "vec: 鱼油怎么吃",
        "vec: 鱼油怎么吃\nlex: 鱼油",
        "lex: \nvec: 鱼油",
        "lex: 鱼油\nvec: ",
        "lex: 鱼油\nlex: 用量\nvec: 鱼油怎么吃",
        "lex: 鱼油\nvec: 鱼油怎么吃\nvec: 用量",
        "好的\nlex: 鱼油\nvec: 鱼油怎么吃",
        "LEX: 鱼油\nVEC: 鱼油怎么吃",
        "complex: fish vec: oil",
        "lex：鱼油 vec：鱼油怎么吃",
        "",
    ],
)
def test_any_other_text_is_one_rewrite(text: str) -> None:
    assert read_pair(text) is None and words_of(text) == text and retrieval_fields(text) == {"rewritten_query": text}


class Services:
    """A retrieval service that knows `keyword_query`, and a rewriter that may answer with a pair."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.rewrite: dict[str, Any] = {"rewritten_query": "鱼油 保质期"}
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request) -> dict[str, Any]:
            body = await request.json()
            self.requests.append(body)
            found = "0" if body.get("keyword_query") else "1"
            hit = {"content": f"passage {found}", "score": 1.0, "reranker_score": 0.5, "doc_id": found}
            return {"data": {"recall": [hit]}}

        @app.post("/api/rewrite_query")
        async def rewrite_query() -> dict[str, Any]:
            return self.rewrite

        server = AsgiServer(app, log_level="critical", timeout_graceful_shutdown=0)
        self.url, self.close = server.url, server.close


@pytest.fixture
def services() -> Iterator[Services]:
    made = Services()
    yield made
    made.close()


def score(folder: Path, url: str, completion: str) -> Scoring:
    tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "p", "rag": {"url": url}, "baseline": {"url": url}}
    settings = RewriterSettings.model_validate(
        {"tenant": tenant, "reward": {}, "ledger": {"path": folder / "ledger.sqlite", "run_id": "test"}}
    )
    sample = Sample(
        sample_id="a",
        original_query="鱼油咋吃",
        metadata=Metadata(tenant_id="t"),
        candidates=Candidates(baseline=""),
        relevant_doc_ids=("0",),
    )

    async def run() -> Scoring:
        scorer = Scorer(settings)
        try:
            return await scorer.score(sample, completion, 1)
        finally:
            await scorer.aclose()

    return asyncio.run(run())


def test_the_reward_retrieves_with_both_texts(services: Services, tmp_path: Path) -> None:
    outcome = score(tmp_path, services.url, PAIR).rollout.outcome
    asked = {body["rewritten_query"]: body.get("keyword_query") for body in services.requests}
    assert asked == {"鱼油应该怎么吃": "鱼油 用法用量", "鱼油 保质期": None, "鱼油咋吃": None}
    assert isinstance(outcome, Scored) and outcome.parts.policy_rank == 1 and outcome.reward > 0
    services.requests.clear()
    alone = score(tmp_path, services.url, "鱼油应该怎么吃").rollout.outcome
    assert isinstance(alone, Scored) and alone.parts.policy_rank is None and alone.reward < outcome.reward
    assert [body.get("keyword_query") for body in services.requests] == [None]  # another question, asked anew


def test_each_text_of_a_pair_passes_the_gates(services: Services, tmp_path: Path) -> None:
    sound = "鱼油应该怎么吃"
    for text, reason in (
        ("鱼油 3粒", GateReason.NUMBER_INVENTED),
        ("鱼油 <|im_end|>", GateReason.TEMPLATE_LEAK),
        ("fish oil dose", GateReason.LANGUAGE_SWITCH),
        ("鱼油 " * 20, GateReason.TOO_LONG),
    ):
        for pair in (RewritePair(text.strip(), sound), RewritePair(sound, text.strip())):
            rollout = score(tmp_path, services.url, pair.text).rollout
            assert isinstance(rollout.outcome, Gated) and rollout.outcome.reason is reason
            assert fails_gates(rollout.sample, rollout.completion, [reason])
    assert not services.requests
    rollout = score(tmp_path, services.url, PAIR).rollout
    assert isinstance(rollout.outcome, Scored) and not fails_gates(rollout.sample, PAIR, set(GateReason))


def test_a_retrieval_answer_names_both_texts_of_its_rewriter() -> None:
    pair = {"rewritten_query": "鱼油应该怎么吃", "keyword_query": "鱼油 用法用量"}
    assert rewrite_in(pair) == PAIR and retrieval_fields(rewrite_in(pair)) == pair
    none: list[dict[str, Any]] = [{}, {"rewritten_query": None}, {"keyword_query": "鱼油"}]
    assert [rewrite_in(answer) for answer in none] == ["", "", ""]
    assert rewrite_in({"rewritten_query": " 鱼油 ", "keyword_query": None}) == " 鱼油 "


def test_the_deployed_rewriter_may_answer_with_a_pair(services: Services, tmp_path: Path) -> None:
    async def ask() -> object:
        client = BaselineClient(BaselineSettings(url=services.url), "t")
        try:
            sample = Sample(sample_id="a", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"))
            return (await client.rewrite(sample))[0]
        finally:
            await client.aclose()

    for more, expected in (
        ({"keyword_query": " 鱼油 用量 "}, "lex: 鱼油 用量\nvec: 鱼油 保质期"),
        ({"keyword_query": None}, "鱼油 保质期"),
        ({"keyword_query": " "}, "鱼油 保质期"),
    ):
        services.rewrite = {"rewritten_query": " 鱼油 保质期 ", **more}
        assert asyncio.run(ask()) == expected
