"""What embedding models want before queries and passages: presets by family, stored with the index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from rag.build_index import build_index
from rag.documents.records import IngestError
from rag.models.embedder import embedder_maker
from rag.models.prompts import PRESETS, family_of, split_prompts
from rag.settings import ServiceSettings
from tests.support.loopback_llm import loopback_llm
from tests.support.rag_server import search, serving
from tests.support.tiny_models import save_sentence_transformer

ALPHABET = "鱼油每日一粒怎么吃querypassage: "


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("intfloat/multilingual-e5-small", "e5"),
        ("e5-large-v2", "e5"),
        ("multilingual_e5_base", "e5"),
        ("intfloat/multilingual-e5-large-instruct", "e5-instruct"),
        ("e5-mistral-7b-instruct", "e5-instruct"),
        ("BAAI/bge-large-zh-v1.5", "bge-zh"),
        ("bge-small-zh", "bge-zh"),
        ("BAAI/bge-base-en-v1.5", "bge-en"),
        ("bge-en-icl", "none"),
        ("BAAI/bge-m3", "none"),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3"),
        ("qwen3-embedding:8b", "qwen3"),
        ("text-embedding-3-large", "none"),
        ("type5-model", "none"),
        ("Qwen3-8B", "none"),
    ],
)
def test_a_models_name_tells_its_family(model: str, family: str) -> None:
    assert family_of(model) == family and family in PRESETS


@pytest.mark.parametrize(
    ("address", "query", "passage"),
    [
        ("#intfloat/multilingual-e5-small", "query: 鱼油", "passage: 鱼油"),
        ("#intfloat/multilingual-e5-small?prompts=none", "鱼油", "鱼油"),
        ("#ours?prompts=e5", "query: 鱼油", "passage: 鱼油"),
        ("#bge-large-zh-v1.5", "为这个句子生成表示以用于检索相关文章：鱼油", "鱼油"),
        ("#ours?query_prompt=Q%3A", "Q:鱼油", "鱼油"),
        ("#Qwen3-Embedding-4B", PRESETS["qwen3"].query + "鱼油", "鱼油"),
    ],
)
def test_an_endpoint_is_asked_in_the_models_two_forms(address: str, query: str, passage: str) -> None:
    with loopback_llm() as url:
        embedder = embedder_maker(url + address).fit([])
        embedder.embed_query("鱼油")
        embedder.embed(["鱼油"])
        assert [asked["input"] for asked in url.requests[1:]] == [[query], [passage]]
        assert not any("input_type" in asked for asked in url.requests)


def test_a_server_that_adds_the_prompts_is_told_which_form_it_is() -> None:
    with loopback_llm() as url:
        embedder = embedder_maker(f"{url}#nv-embedqa-e5-v5?prompts=input-type").fit([])
        embedder.embed_query("鱼油")
        embedder.embed(["鱼油"])
        asked = [(one["input"], one["input_type"]) for one in url.requests[1:]]
        assert asked == [(["鱼油"], "query"), (["鱼油"], "passage")]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:9/v1#m?prompts=e6", "no such preset"),
        ("http://127.0.0.1:9/v1#m?prompts=e5&query_prompt=x", "leave the others out"),
        ("http://127.0.0.1:9/v1#m?prompt=e5", "neither query_prompt nor passage_prompt"),
        ("http://127.0.0.1:9/v1#m?", "neither query_prompt nor passage_prompt"),
        ("http://127.0.0.1:9/v1#m?e5", "neither query_prompt nor passage_prompt"),
    ],
)
def test_prompts_that_cannot_be_are_one_line(address: str, problem: str) -> None:
    with pytest.raises(IngestError, match=problem):
        split_prompts(address)


def test_a_folders_family_prompts_its_texts_and_its_own_prompts_come_first(tmp_path: Path) -> None:
    plain = save_sentence_transformer(tmp_path / "plain", ALPHABET)
    raw, e5 = embedder_maker(str(plain)), shutil.copytree(plain, tmp_path / "multilingual-e5-small")
    named = embedder_maker(str(e5))
    assert named.id.endswith("with passage prompt 'passage: '")
    for prompted in (named, embedder_maker(f"{plain}?prompts=e5")):
        embedder, bare = prompted.fit([]), raw.fit([])
        np.testing.assert_allclose(embedder.embed(["鱼油"]), bare.embed(["passage: 鱼油"]), atol=1e-5)
        np.testing.assert_allclose(embedder.embed_query("鱼油"), bare.embed_query("query: 鱼油"), atol=1e-5)
    own = save_sentence_transformer(tmp_path / "e5-tuned", ALPHABET, prompts={"query": "怎么: "})
    tuned = embedder_maker(str(own)).fit([])
    np.testing.assert_allclose(tuned.embed_query("鱼油"), tuned.embed(["怎么: 鱼油"])[0], atol=1e-5)
    with pytest.raises(IngestError, match="input-type is for a server"):
        embedder_maker(f"{plain}?prompts=input-type")
    with pytest.raises(IngestError, match="query: '"):
        embedder_maker(f"{plain}?prompts=bge-zh").load(json.dumps("query: ").encode())


def test_an_index_refuses_another_query_prompt_and_remembers_its_own(tmp_path: Path) -> None:
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "a.txt").write_text("鱼油每日一粒。\n\n钙片睡前服用。", encoding="utf-8")
    with loopback_llm() as url:
        build_index(tmp_path / "kb", tmp_path / "data", "shop", retriever=f"{url}#e5-small")
        for other in ("#e5-small?query_prompt=Q&passage_prompt=passage%3A+", "#e5-small?prompts=none"):
            with (
                pytest.raises(IngestError, match="build the index again"),
                serving(tmp_path / "data", ServiceSettings(retriever=url + other)),
            ):
                pass
        # Who names the passages' prompt alone searches with the queries' one of the index.
        settings = ServiceSettings(retriever=f"{url}#e5-small", passage_prompt="passage: ")
        with serving(tmp_path / "data", settings) as service:
            url.requests.clear()
            assert search(service, query="鱼油", tenant_id="shop").status_code == 200
            assert [asked["input"] for asked in url.requests] == [["query: 鱼油"]]
            health = httpx.get(f"{service}/healthz", trust_env=False).json()["knowledge_bases"][0]
            assert health["embedder_id"] == "endpoint:e5-small with passage prompt 'passage: '"
