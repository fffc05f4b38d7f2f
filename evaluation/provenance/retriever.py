"""What identifies the retriever that an evaluation ran on, and whether training had the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from evaluation.provenance.training_run import TrainingRun
from reward.records.call import content_key
from reward.services.http_calls import read_api_key
from reward.settings.services import RagSettings

_SECONDS = 5.0
_INDEX = ("version", "embedder_id", "tokenizer_id", "store_id", "fusion", "reranker")


def read_index(rag: RagSettings, tenant_id: str) -> dict[str, Any] | None:
    """Return what this project's service says of the knowledge base at `/healthz`, None where a service is silent."""
    headers = {"Authorization": f"Bearer {read_api_key(rag.api_key_env, rag.url)}"} if rag.api_key_env else {}
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=False) as http:
            health = json.loads(http.get(rag.url.rstrip("/") + "/healthz", headers=headers).content)
        bases = health["knowledge_bases"]
        own = next(kb for kb in bases if kb["tenant_id"] == tenant_id and kb["kb_name"] == rag.kb_name)
        return {key: own[key] for key in _INDEX}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, StopIteration):
        return None


def describe_retriever(
    rag: RagSettings, index: Mapping[str, Any] | None, scorers: list[str], runs: Mapping[str, TrainingRun | None]
) -> dict[str, Any]:
    """Return `provenance.retriever`.

    Args:
        scorers: the rerankers that the answers name.
        runs: model -> the training run that it comes from.

    Returns:
        `fingerprint` over all that follows: `kb_name`, `kb_version`, `scorers`, `index`; and `training`: model -> what
        its training recorded of the same, with `changed`: what differs, in words. None where nothing is recorded.
    """
    identity = {"kb_name": rag.kb_name, "kb_version": rag.kb_version, "scorers": scorers, "index": index}
    return {
        "fingerprint": content_key("retriever", identity)[:16],
        **identity,
        "training": {name: _recorded(run, rag, scorers) if run else None for name, run in runs.items()},
    }


def _recorded(run: TrainingRun, rag: RagSettings, scorers: list[str]) -> dict[str, Any]:
    services = run.services
    compared = {"kb_name": (services.kb_name, rag.kb_name), "kb_version": (services.kb_version, rag.kb_version)}
    if run.reranker:
        compared["reranker"] = (run.reranker, ", ".join(scorers))
    changed = [
        f"{what}: {before!r} in training, {now!r} here" for what, (before, now) in compared.items() if before != now
    ]
    return {
        "kb_name": services.kb_name,
        "kb_version": services.kb_version,
        "reranker": run.reranker or None,
        "changed": changed,
    }
