"""A tenant's own reranker: set by a command, swapped in a running service, checked by its canary; real tiny models."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.manage_rerankers import main as manage
from rag.models.cross_encoder import LocalCrossEncoder
from rag.models.failure import ModelFailure
from rag.models.reranker_canary import PAIRS
from rag.settings import ServiceSettings
from tests.support.loopback_llm import Fault, loopback_llm
from tests.support.rag_server import add_sample_tenants, search, serving
from tests.support.tiny_models import save_cross_encoder

ALPHABET = "".join(dict.fromkeys("".join(query + passage for query, passage, _ in PAIRS)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two cross-encoders of different heads, and one that gives everything the same score."""
    root = tmp_path_factory.mktemp("models")
    first = save_cross_encoder(root / "first", ALPHABET)
    made = {"first": first}
    for name, factor in (("second", -3.0), ("flat", 0.0)):
        made[name] = shutil.copytree(first, root / name)
        tensors = load_file(first / "model.safetensors")
        scaled = {key: t * factor if "classifier" in key else t for key, t in tensors.items()}
        save_file(scaled, made[name] / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_sample_tenants(tmp_path / "data")
    return tmp_path / "data"


def give(folder: Path, reranker: object, tenant: str = "fivedoctors") -> int:
    return manage(["set", "--index", str(folder), "--tenant", tenant, "--reranker", str(reranker)])


def asked(url: str, tenant: str = "fivedoctors") -> dict[str, Any]:
    return search(url, tenant_id=tenant, query="鱼油怎么吃", top_k=5).json()["data"]


def health(url: str, tenant: str = "fivedoctors") -> dict[str, Any]:
    bases = httpx.get(f"{url}/healthz", trust_env=False).json()["knowledge_bases"]
    return next(one for one in bases if one["tenant_id"] == tenant)


def when_settled(url: str, tenant: str = "fivedoctors") -> dict[str, Any]:
    """Ask until the swap is done, and once more."""
    asked(url, tenant)
    for _ in range(300):
        if "is being loaded" not in health(url, tenant)["reranker_problem"]:
            return asked(url, tenant)
        time.sleep(0.05)
    raise AssertionError("the swap does not end")


def test_a_running_service_swaps_a_tenants_reranker_and_no_other_tenants(folder, models, capsys) -> None:
    with serving(folder) as url:
        assert asked(url)["reranker"] == "lexical-coverage-v1"
        assert give(folder, models["first"]) == 0
        found = when_settled(url)
        assert found["reranker"].startswith("first@") and found["channels"]["rerank"] == "on"
        scores = [hit["reranker_score"] for hit in found["recall"]]
        assert scores == sorted(scores, reverse=True)
        assert asked(url, "chengla")["reranker"] == "lexical-coverage-v1"
        # Another model in its place, then none.
        assert give(folder, models["second"]) == 0
        assert when_settled(url)["reranker"].startswith("second@")
        assert "against first@" in capsys.readouterr().out
        assert manage(["unset", "--index", str(folder), "--tenant", "fivedoctors"]) == 0
        assert when_settled(url)["reranker"] == "lexical-coverage-v1"
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'rag_reranker_swap_total{outcome="swapped",tenant="fivedoctors"} 3.0' in metrics
    capsys.readouterr()
    assert manage(["list", "--index", str(folder)]) == 0
    assert [line.split("\t")[3].split("@")[0] for line in capsys.readouterr().out.splitlines()] == [
        "first",
        "second",
        "settings",
    ]


def test_a_service_that_starts_has_the_tenants_reranker(folder, models) -> None:
    assert give(folder, models["first"]) == 0
    with serving(folder, ServiceSettings(reranker=str(models["second"]))) as url:
        assert asked(url)["reranker"].startswith("first@")  # from the first request on
        assert asked(url, "chengla")["reranker"].startswith("second@")


def test_a_reranker_without_a_part_of_the_order_scores_the_hits_where_they_stand(folder, models) -> None:
    reranker = str(models["first"])
    with serving(folder) as url:
        fused = asked(url)["recall"]
    with serving(folder, ServiceSettings(reranker=reranker)) as url:
        ordering = {hit["doc_id"]: hit["reranker_score"] for hit in asked(url)["recall"]}
    with serving(folder, ServiceSettings(reranker=reranker, rerank_part=0)) as url:
        found = asked(url)
    assert [hit["doc_id"] for hit in found["recall"]] == [hit["doc_id"] for hit in fused] != list(ordering)
    assert all(hit["reranker_score"] == ordering[hit["doc_id"]] for hit in found["recall"] if hit["doc_id"] in ordering)
    assert found["reranker"].startswith("first@") and "rerank 0" in found["fusion"]


@pytest.mark.parametrize("change", ["weights", "gone"])
def test_a_model_that_is_no_longer_what_was_checked_is_not_swapped_in(folder, models, tmp_path, change) -> None:
    ours = shutil.copytree(models["first"], tmp_path / "ours")
    with serving(folder, ServiceSettings(reranker=str(models["second"]))) as url:
        assert give(folder, ours) == 0
        if change == "weights":
            shutil.copy(models["second"] / "model.safetensors", ours / "model.safetensors")
        else:
            shutil.rmtree(ours)
        found = when_settled(url)
        assert found["reranker"].startswith("second@") and found["channels"]["rerank"] == "on"
        problem = health(url)["reranker_problem"]
        assert str(ours) in problem and ("was set" in problem or "neither" in problem) and "\n" not in problem
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'rag_reranker_swap_total{outcome="refused",tenant="fivedoctors"} 1.0' in metrics


def test_an_endpoint_that_serves_another_model_under_the_same_name_is_found_out_by_its_canary(folder) -> None:
    sign = [1.0]

    def rerank(body: dict) -> dict:
        def score(text: str) -> float:
            return 0.5 + sign[0] * (len(set(text) & set(body["query"])) / 40)

        return {"results": [{"index": i, "relevance_score": score(t)} for i, t in enumerate(body["documents"])]}

    with loopback_llm(rerank=rerank) as llm, serving(folder) as url:
        assert give(folder, f"{llm}#ours") == 0
        sign[0] = -1.0
        assert when_settled(url)["reranker"] == "lexical-coverage-v1"
        assert "its canary differs by" in health(url)["reranker_problem"]
        assert give(folder, f"{llm}#ours") == 0
        assert when_settled(url)["reranker"] == "endpoint:ours"


@pytest.mark.parametrize("wrong", ["flat", "missing", "tenant"])
def test_what_cannot_be_set_is_one_line_and_changes_nothing(folder, models, capsys, wrong) -> None:
    reranker = {"flat": models["flat"], "missing": "no/such/folder"}.get(wrong, models["first"])
    assert give(folder, reranker, "nobody" if wrong == "tenant" else "fivedoctors") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert manage(["list", "--index", str(folder)]) == 0 and capsys.readouterr().out == ""


def test_a_reranker_that_takes_too_long_is_given_up_and_every_answer_says_so(folder) -> None:
    slow = Fault(delay=3.0, body='{"results": []}')
    with loopback_llm(rerank=lambda body: slow) as llm:
        settings = ServiceSettings(reranker=f"{llm}#slow", rerank_timeout=0.2)
        with serving(folder, settings) as url:
            found = asked(url)
            assert found["channels"]["rerank"] == "fell back: endpoint:slow: no answer within 0.2 s"
            assert found["reranker"] == "lexical-coverage-v1" and len(found["recall"]) == 5
            metrics = httpx.get(f"{url}/metrics", trust_env=False).text
            assert 'rag_channel_total{channel="rerank",state="timeout"} 1.0' in metrics


def test_requests_at_one_time_are_computed_together_a_pair_once_and_one_that_is_gone_no_further(models) -> None:
    encoder = LocalCrossEncoder(models["first"])
    batches: list[int] = []
    forward = encoder._model.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        batches.append(len(kwargs["input_ids"]))
        time.sleep(0.05)
        return forward(*args, **kwargs)

    encoder._model.model.forward = counted
    passages = [passage for _, passage, _ in PAIRS]
    queries = [f"鱼油怎么吃{number}" for number in range(7)]
    apart = LocalCrossEncoder(models["first"])

    async def run() -> None:
        alone = [await apart.score(query, "", passages) for query in queries]
        together = await asyncio.gather(*(encoder.score(query, "", passages) for query in queries))
        assert np.allclose(together, alone, atol=1e-6)
        assert sum(batches) == 7 * len(passages) and len(batches) < 7
        # Rewrites of one query: what is new of their passages is computed once.
        batches.clear()
        new = [*passages[::-1], "鱼油饭后吃"]
        again = await asyncio.gather(*(encoder.score(queries[0], "", new) for _ in range(3)))
        assert all(np.allclose(scores[:-1], alone[0][::-1], atol=1e-6) for scores in again)
        assert sum(batches) == 1
        batches.clear()
        # The first holds the worker up; the second has gone before its turn comes.
        long_list = [f"{passage}{number}" for number in range(10) for passage in passages]
        first = asyncio.ensure_future(encoder.score("鱼油怎么吃", "", long_list))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await encoder.score("孕妇", "", long_list)
        assert np.allclose(await first, await apart.score("鱼油怎么吃", "", long_list), atol=1e-6)
        assert sum(batches) == 10 * len(passages)
        long = await encoder.score("鱼油怎么吃", "", ["鱼油" * 25_000])
        assert long.shape == (1,)
        await apart.aclose()
        await encoder.aclose()
        with pytest.raises(ModelFailure):
            await encoder.score("鱼油怎么吃", "", passages)

    with torch.inference_mode():
        asyncio.run(run())
