"""Scores of a retrieval: on the declared scale, of one origin, and usable or not."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, FailureKind, ServiceFailure
from reward.records.outcome import Evidence, passage_key, why_unusable
from reward.records.sample import Context, Hit, Metadata, Sample
from reward.services.rag_client import RagAnswer, RagClient
from reward.services.score_scales import origin_of, to_unit
from reward.services.tenant_services import TenantServices, evidence_of
from reward.settings.recipe import LedgerSettings, TenantSettings
from reward.settings.services import RagSettings
from tests.support.scripted_service import ScriptedService, Step, answer

QUICK: dict[str, Any] = {"attempts": 2, "backoff": (0.01, 0.02)}
SAMPLE = Sample(sample_id="1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"))
RANKED = {"content": "鱼油", "reranker_score": 0.9, "score": 1.5, "doc_id": "1"}
FUSED = {"content": "钙片", "score": 0.7, "doc_id": "2"}
BARE = {"content": "锌", "doc_id": "3"}


def found(*hits: dict[str, Any], **data: Any) -> Step:
    return answer({"data": {"recall": list(hits), **data}})


def ask(script: list[Step], **values: Any) -> tuple[RagAnswer | ServiceFailure, int]:
    """The answer, and how many requests it took."""

    async def play() -> tuple[RagAnswer | ServiceFailure, int]:
        async with ScriptedService(script) as service:
            client = RagClient(RagSettings.model_validate({**QUICK, "url": service.url, **values}), "t")
            given, trace = await client.retrieve("鱼油咋吃", Context(), rewritten_query="鱼油")
            await client.aclose()
            assert trace.attempts == len(service.bodies)
            return given, trace.attempts

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("scale", "score", "share"),
    [
        ("unit", 0.5, 0.5), ("unit", 1, 1.0), ("unit", 1.0000001, 1.0), ("unit", -1e-7, 0.0), ("unit", 1.1, None),
        ("unit", 6.2, None), ("unit", -8.1, None), ("unit", 99.5, None), ("percent", 99.5, 0.995), ("percent", 0, 0.0),
        ("percent", 100.00001, 1.0), ("percent", 101, None), ("percent", -1, None), ("logit", 0, 0.5),
        ("logit", 6.2, 1 / (1 + math.exp(-6.2))), ("logit", 1e6, 1.0), ("logit", -1e6, 0.0), ("logit", 0.7, 0.668188),
    ],
)  # fmt: skip
def test_a_score_is_brought_to_a_share_or_refused(scale: Any, score: float, share: float | None) -> None:
    given, requests = ask([found(RANKED | {"reranker_score": score})], score_scale=scale)
    assert requests == 1
    if share is None:
        assert isinstance(given, ServiceFailure) and given.kind is FailureKind.MALFORMED
        assert "outside" in given.reason and "score_scale" in given.reason and "hit 1" in given.reason
    else:
        assert isinstance(given, RagAnswer) and given.hits[0].reranker_score == pytest.approx(share, abs=1e-6)
        assert given.hits[0].score == 1.5  # the engine's own score has no scale


@given(st.sampled_from(["unit", "percent", "logit"]), st.floats(), st.floats())
def test_every_score_keeps_its_order_in_the_unit_range(scale: Any, one: float, other: float) -> None:
    try:
        shares = to_unit(one, scale), to_unit(other, scale)
    except ValueError:
        return
    assert all(0 <= share <= 1 for share in shares)
    assert one > other or shares[0] <= shares[1]


MIXED = {
    "one reranked, one not": [RANKED, FUSED],
    "one fused, one without a score": [FUSED, BARE],
    "one reranked, one without a score": [RANKED, BARE],
    "the last of many not reranked": [RANKED] * 9 + [FUSED],
    "null": [RANKED, RANKED | {"reranker_score": None}],
}


@pytest.mark.parametrize("hits", MIXED.values(), ids=MIXED)
def test_hits_with_scores_of_two_kinds_are_asked_again_and_never_an_answer(hits: list[dict[str, Any]]) -> None:
    given, requests = ask([found(*hits)])
    assert isinstance(given, ServiceFailure) and given.kind is FailureKind.MALFORMED and requests == 2
    mended, requests = ask([found(*hits), found(RANKED, RANKED)])
    assert isinstance(mended, RagAnswer) and requests == 2


@pytest.mark.parametrize("channel", ["rerank", "dense", "keyword"])
def test_a_service_that_fell_back_is_asked_again(channel: str) -> None:
    fallen = found(RANKED, reranker="lexical-coverage-v1", channels={channel: "fell back: HTTP 503"})
    given, requests = ask([fallen])
    assert isinstance(given, ServiceFailure) and "fell back: HTTP 503" in given.reason and requests == 2
    well, _ = ask([fallen, found(RANKED, reranker="bge", channels={channel: "on", "rewrite": "given"})])
    assert isinstance(well, RagAnswer) and well.origin == "bge"


@pytest.mark.parametrize(
    ("hits", "reranker", "origin"),
    [
        ([RANKED], "bge", "bge"), ([RANKED], "", "reranker"), ([FUSED], "bge", "fused"), ([BARE], "bge", ""),
        ([], "bge", ""),
    ],
)  # fmt: skip
def test_the_origin_travels_with_the_scores(hits: list[dict[str, Any]], reranker: str, origin: str) -> None:
    given, _ = ask([found(*hits, reranker=reranker)])
    assert isinstance(given, RagAnswer) and given.origin == origin
    assert evidence_of(given.hits, (), "", "", given.origin).origin == origin
    assert origin_of([Hit(content="", score=1.0), Hit(content="", reranker_score=1.0)], "bge") is None


@pytest.mark.parametrize(
    ("hits", "needs_ids", "needs_scores", "usable"),
    [
        ([RANKED], True, True, True), ([], True, True, True), ([BARE], True, False, True), ([BARE], True, True, False),
        ([RANKED, {"content": "无号"}], True, False, False), ([{"content": "无号", "score": 1.0}], False, True, True),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_says_why(hits: list[Any], needs_ids: bool, needs_scores: bool, usable: bool) -> None:
    evidence = evidence_of([Hit.model_validate(hit) for hit in hits], ("1",), "", "", "")
    told = why_unusable(evidence, needs_ids=needs_ids, needs_scores=needs_scores)
    assert (told is None) is usable


def test_only_what_is_comparable_is_kept_and_contents_once(tmp_path: Path) -> None:
    script = [
        found(RANKED, FUSED),
        found(RANKED, RANKED | {"doc_id": "9"}, BARE | {"reranker_score": 0.1}, reranker="bge"),
    ]

    async def play() -> list[Answer]:
        async with ScriptedService(script) as service:
            rag = {**QUICK, "attempts": 1, "url": service.url}
            tenant = TenantSettings.model_validate({"tenant_id": "t", "short_id": "t", "system_prompt": "", "rag": rag})
            ledger = Ledger(LedgerSettings(path=tmp_path / "ledger.sqlite", run_id="r"))
            services = TenantServices(tenant, 5, Calls(ledger))
            answers = [await services.retrieve(SAMPLE, "鱼油") for _ in range(3)]
            await services.aclose()
            ledger.close()
            return answers

    mixed, first, again = asyncio.run(play())
    assert isinstance(mixed.value, ServiceFailure) and (first.source, again.source) == ("made", "stored")
    evidence = Evidence.model_validate(again.value)
    assert evidence.origin == "bge" and evidence.passages == tuple(map(passage_key, ("鱼油", "鱼油", "锌")))
    assert [hit.content for hit in evidence.top_hits] == ["", "", ""]
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    assert dict(db.execute("SELECT key, content FROM passages")) == {passage_key(c): c for c in ("鱼油", "锌")}
    assert [row[0] for row in db.execute("SELECT status FROM calls ORDER BY id")] == ["malformed", "ok"]
