"""Hits of unknown relevance are judged by one reranker for a whole run: a real engine, a real service on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from reward.engine import RewardEngine
from reward.records.files import BadInput
from reward.records.sample import Candidates, Metadata, Sample
from reward.settings.recipe import RewriterSettings
from tests.support.asgi_server import AsgiServer

OURS, OTHER = "ours@0123456789ab", "ours@ba9876543210"


class Service:
    """Answers every search with the same hit, judged by `reranker`."""

    def __init__(self) -> None:
        self.app, self.url, self.reranker = FastAPI(), "", OURS

        @self.app.post("/api/chat/general_rag")
        def retrieve(body: dict[str, Any]) -> dict[str, Any]:
            score = 0.9 if "用法" in body["rewritten_query"] else 0.3
            hit = {"content": "鱼油每日两粒", "doc_id": "1", "score": 0.5, "reranker_score": score}
            return {"data": {"recall": [hit], "reranker": self.reranker}}


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    with AsgiServer(made.app) as server:
        made.url = server.url
        yield made


def score(folder: Path, service: Service, *queries: str, relevant: tuple[str, ...] = (), **reward: Any) -> list[dict]:
    """The fields of one rollout a query, of one run in `folder`."""
    tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "", "rag": {"url": service.url, "attempts": 1}}
    ledger = {"path": folder / f"ledger-{service.reranker}.sqlite", "run_id": "r"}
    settings = RewriterSettings.model_validate({"tenant": tenant, "ledger": ledger, "reward": {"gates": [], **reward}})

    async def run() -> list[dict]:
        engine = RewardEngine(settings, folder)
        try:
            return [
                await engine.score(
                    Sample(
                        sample_id=query,
                        original_query=query,
                        metadata=Metadata(tenant_id="t"),
                        candidates=Candidates(baseline=f"{query} 说明"),
                        relevant_doc_ids=relevant,
                    ),
                    f"{query} 用法用量",
                    1,
                )
                for query in queries
            ]
        finally:
            await engine.aclose()

    return asyncio.run(run())


def test_the_first_reranker_is_pinned_and_another_abstains_until_it_is_back(tmp_path: Path, service: Service) -> None:
    (first,) = score(tmp_path, service, "鱼油")
    assert first["abstained"] == 0 and first["score"] > 0
    assert json.loads((tmp_path / "reranker.json").read_text()) == {"reranker": OURS, "first_step": 1}
    service.reranker = OTHER
    (changed,) = score(tmp_path, service, "钙片")
    assert changed["abstained"] == 1 and changed["score"] == 0
    assert OURS in changed["detail"] and OTHER in changed["detail"] and "\n" not in changed["detail"]
    logged = [line for file in (tmp_path / "rollouts").glob("*") for line in file.read_text().splitlines()]
    assert len(logged) == 2 and sum("changed during the run" in line for line in logged) == 1
    service.reranker = OURS
    assert score(tmp_path, service, "叶黄素")[0]["abstained"] == 0


def test_settings_name_the_only_one_that_may_judge(tmp_path: Path, service: Service) -> None:
    (refused,) = score(tmp_path, service, "鱼油", reranker=OTHER)
    assert refused["abstained"] == 1 and OTHER in refused["detail"]
    with pytest.raises(BadInput, match=rf"judged by {OTHER}, but rewriter.reward.reranker is {OURS}"):
        score(tmp_path, service, "鱼油", reranker=OURS)


def test_known_passages_need_no_judge_and_a_lexical_one_is_pinned_like_any_other(tmp_path, service) -> None:
    assert score(tmp_path, service, "鱼油", relevant=("1",))[0]["abstained"] == 0
    assert not (tmp_path / "reranker.json").exists()
    service.reranker = "lexical-coverage-v1"
    assert score(tmp_path, service, "钙片", accept_lexical=True)[0]["abstained"] == 0
    service.reranker = OURS
    assert score(tmp_path, service, "叶黄素", accept_lexical=True)[0]["abstained"] == 1


def test_a_damaged_pin_is_one_line(tmp_path: Path, service: Service) -> None:
    (tmp_path / "reranker.json").write_text("{")
    with pytest.raises(BadInput, match=r"^[^\n]*reranker.json: damaged[^\n]*$"):
        score(tmp_path, service, "鱼油")
