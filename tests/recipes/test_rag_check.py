"""Preflight's question to the retrieval service: hits that no rollout could be scored by are found before the run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from recipes.checks.finding import Level
from recipes.preflight import reranker_finding
from recipes.retrieval_check import check_rag
from reward.records.files import BadInput
from reward.records.sample import Metadata, Sample
from reward.settings.recipe import RewriterSettings
from tests.support.asgi_server import AsgiServer

GOOD = {"content": "鱼油", "doc_id": "1", "reranker_score": 0.9}
NO_ID = {"content": "鱼油", "reranker_score": 0.9}
NO_SCORE = {"content": "鱼油", "doc_id": "1"}


def check(
    folder: Path, hits: list[dict[str, Any]], relevant: tuple[str, ...], reranker: str = "", **rag: Any
) -> tuple[int, str]:
    """What preflight says of a service that returns these hits, when these passages are relevant."""
    sample = Sample(sample_id="1", original_query="鱼油", metadata=Metadata(tenant_id="t"), relevant_doc_ids=relevant)
    train = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist([{"extra_info": sample.to_extra_info(0)}]), train)
    app = FastAPI()

    @app.post("/api/chat/general_rag")
    def retrieve() -> dict[str, Any]:
        return {"data": {"recall": hits, "reranker": reranker}}

    with AsgiServer(app) as server:
        tenant = {
            "tenant_id": "t",
            "short_id": "t",
            "system_prompt": "",
            "rag": {"url": server.url, "attempts": 1, **rag},
        }
        ledger = {"path": folder / "ledger.sqlite", "run_id": "r"}
        settings = RewriterSettings.model_validate({"tenant": tenant, "ledger": ledger})
        config: Any = SimpleNamespace(data=SimpleNamespace(train_files=str(train)))
        return check_rag(settings, config, folder)[:2]


@pytest.mark.parametrize(
    ("hits", "relevant"), [([GOOD], ("1",)), ([GOOD, GOOD], ()), ([NO_ID], ()), ([NO_SCORE], ("1",))]
)
def test_hits_that_can_be_scored(tmp_path: Path, hits: list[dict[str, Any]], relevant: tuple[str, ...]) -> None:
    assert check(tmp_path, hits, relevant)[0] == len(hits)


@pytest.mark.parametrize(
    ("hits", "relevant", "told"),
    [
        ([], (), "no hit"),
        ([GOOD, NO_ID], ("1",), "without doc_id"),
        ([NO_SCORE], (), "without any score"),
        ([GOOD | {"reranker_score": 6.2}], (), "outside .*score_scale"),
        ([GOOD, NO_SCORE], (), "1 hits with a reranker_score"),
    ],
)
def test_hits_that_cannot_be_scored_are_one_line(tmp_path: Path, hits: list[Any], relevant: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        check(tmp_path, hits, relevant)
    assert "rewriter.tenant.rag" in str(error.value) and "\n" not in str(error.value)


def test_a_declared_scale_is_taken(tmp_path: Path) -> None:
    assert check(tmp_path, [GOOD | {"reranker_score": 6.2}], (), score_scale="logit")[0] == 1


def test_the_reranker_that_judges_is_named_and_has_to_be_the_one_that_the_run_pinned(tmp_path: Path) -> None:
    assert check(tmp_path, [GOOD], (), "ours@0123456789ab") == (1, "ours@0123456789ab")
    assert check(tmp_path, [GOOD], ("1",), "ours@0123456789ab") == (1, "")  # passages are known
    (tmp_path / "reranker.json").write_text('{"reranker": "ours@aaaaaaaaaaaa"}')
    with pytest.raises(BadInput, match="ours@0123456789ab judges the hits, but ours@aaaaaaaaaaaa is pinned"):
        check(tmp_path, [GOOD], (), "ours@0123456789ab")


def test_preflight_shows_the_reranker_and_warns_of_one_without_a_hash() -> None:
    assert reranker_finding("ours@0123456789ab").level is Level.OK
    for bare in ("endpoint:bge-reranker", "reranker", "a@b", "ours@v2"):
        assert reranker_finding(bare).level is Level.WARNING
