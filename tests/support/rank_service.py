"""A retrieval service on loopback that obeys the rewrite, and comparisons run against it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from evaluation import compare
from reward.records.files import write_atomically
from reward.records.sample import Candidates, Context, Metadata, Sample
from tests.support.asgi_server import AsgiServer


class RankService:
    """Answers a rewrite `rank N` with the passage of the query at rank N; a query `broken…` always fails.

    `health` is what /healthz says; None: there is no such path.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.with_ids = True
        self.health: dict[str, Any] | None = None
        app = FastAPI()

        @app.get("/healthz")
        async def healthz() -> JSONResponse:
            return JSONResponse(self.health, status_code=200 if self.health else 404)

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request) -> JSONResponse:
            body = await request.json()
            self.bodies.append(body)
            self.calls[body["query"], body["rewritten_query"]] += 1
            if body["query"].startswith("broken") and body["rewritten_query"].startswith("rank"):
                return JSONResponse({"detail": "no"}, status_code=400)
            wanted = re.match(r"rank (\d+)", body["rewritten_query"])
            rank = int(wanted[1]) if wanted else 3
            ids = [f"other{i}" for i in range(1, 13)]
            ids.insert(rank - 1, "p1")
            recall = [
                {
                    "content": i,
                    "score": 1.0,
                    "reranker_score": round(0.9 / rank, 3),
                    "doc_id": i if self.with_ids else None,
                }
                for i in ids
            ]
            return JSONResponse({"data": {"recall": recall, "reranker": "lexical"}})

        self._server = AsgiServer(app, log_level="error")
        self.url, self.close = self._server.url, self._server.close


def sample(
    number: int, baseline: str, *, query: str = "", relevant: bool = True, slices: tuple[str, ...] = ()
) -> Sample:
    return Sample(
        sample_id=f"t_{number:03d}",
        original_query=query or f"钙片 {number} <b>怎么吃</b>",
        context=Context(user_profile="四十岁"),
        metadata=Metadata(tenant_id="shop", split="test", slices=slices),
        candidates=Candidates(baseline=baseline),
        relevant_doc_ids=("p1",) if relevant else (),
    )


def write_shop(path: Path, **more: Any) -> Path:
    """Write the YAML of the tenant that the samples are of."""
    values = {
        "tenant_id": "shop",
        "short_id": "shop",
        "system_prompt": "改写查询。",
        "rag": {"attempts": 3, "timeout": 60},
        **more,
    }
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def run(tmp_path: Path, tenant: Path, service: RankService, samples: list[Sample], *more: str) -> int:
    write_atomically(tmp_path / "test.jsonl", [sample.to_json() for sample in samples])
    fixed = ["--test", str(tmp_path / "test.jsonl"), "--tenant", str(tenant), "--out", str(tmp_path / "run")]
    return compare.main([*fixed, "--rag-url", service.url, *more])


def read_run(tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "rewrites.jsonl").read_text(encoding="utf-8").splitlines()]
    return metrics, rows
