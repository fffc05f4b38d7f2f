"""Typed expansions and rewrites in two texts, over real HTTP: routed to their channels, fused, bounded, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.models.embedder import HashingEmbedder, HashingMaker, embedder_maker
from rag.models.rewriter import Rewrite
from rag.retrieval.channel_search import MOST_TOKENS, OWN_WEIGHT, channel_texts, keyword_weights
from rag.retrieval.search_request import Expansion, searched_kinds
from rag.service.contracts import GeneralRagResponse
from rag.settings import ServiceSettings, TenantSettings
from tests.rag.test_retriever import Shop
from tests.support.loopback_llm import Fault, embed_text, loopback_llm
from tests.support.rag_server import HEALTH, add_knowledge_base, add_sample_tenants, post, recall, search, serving
from tests.support.tiny_models import save_sentence_transformer

QUERY = "褪黑素怎么样"
BOTH_PATHS = ["/api/chat/general_rag", "/search"]


def line(kind: str, text: str) -> dict[str, str]:
    return {"kind": kind, "text": text}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag") / "data"
    add_sample_tenants(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


def scores(url: str, channel: str, **body: Any) -> dict[str, float]:
    """A channel's score of each passage that it found."""
    hits = recall(url, debug=True, top_k=200, **body)
    return {hit["doc_id"]: hit["channels"][channel]["score"] for hit in hits if channel in hit["channels"]}


def test_lex_lines_reach_the_keyword_channel_alone(url: str) -> None:
    lines = [line("lex", "鱼油 发票"), line("lex", "电子发票")]
    plain, expanded = (scores(url, "keyword", query=QUERY, expansions=given) for given in (None, lines))
    alone = [scores(url, "keyword", query=one["text"]) for one in lines]
    assert "0-invoice" not in plain and expanded["0-invoice"] > 0
    for doc_id, score in expanded.items():
        expected = OWN_WEIGHT * plain.get(doc_id, 0) + sum(one.get(doc_id, 0) for one in alone)
        assert score == pytest.approx(expected, rel=1e-3)
    assert scores(url, "dense", query=QUERY, expansions=lines) == scores(url, "dense", query=QUERY)


@pytest.mark.parametrize("kind", ["vec", "hyde"])
def test_vec_and_hyde_lines_reach_the_dense_channel_alone(url: str, kind: str) -> None:
    lines = [line(kind, "未拆封的产品七天内可以退货")]
    plain, expanded = (scores(url, "dense", query=QUERY, expansions=given) for given in (None, lines))
    alone = scores(url, "dense", query=lines[0]["text"])
    assert max(expanded, key=expanded.__getitem__).endswith("-return")
    # Every passage has the weighted mean of its cosines, but for one factor.
    ratios = {
        round(expanded[doc_id] / (OWN_WEIGHT * plain[doc_id] + alone[doc_id]), 2)
        for doc_id in expanded
        if expanded[doc_id] > 0.2
    }
    assert len(ratios) == 1
    assert scores(url, "keyword", query=QUERY, expansions=lines) == scores(url, "keyword", query=QUERY)


@pytest.mark.parametrize("path", BOTH_PATHS)
def test_each_kind_says_what_became_of_it(url: str, path: str) -> None:
    lines = [line("hyde", HEALTH["0-usage"]), line("lex", "鱼油"), line("vec", "鱼油怎么吃"), line("lex", "服用")]
    asked: dict[str, Any] = {"query": QUERY, "tenant_id": "fivedoctors", "score_threshold": 0, "expansions": lines}
    answer = post(url, path, **asked)
    GeneralRagResponse.model_validate_json(answer.content, strict=True)
    data = answer.json()["data"]
    assert data["expansions"] == {"hyde": "searched", "lex": "searched", "vec": "searched"}
    assert (data["channels"]["rewrite"], data["channels"]["query2doc"]) == ("given", "given")
    assert (data["rewritten_query"], data["rewrite_source"]) == (QUERY, "query")
    data = post(url, path, **asked, channels={"dense": False}).json()["data"]
    assert data["expansions"] == {
        "hyde": "not searched: dense off",
        "lex": "searched",
        "vec": "not searched: dense off",
    }
    assert data["recall"]
    data = post(url, path, **asked, channels={"keyword": False}).json()["data"]
    assert data["expansions"]["lex"] == "not searched: keyword off" and data["recall"]


def test_other_answers_stay_as_they_are(url: str) -> None:
    data = search(url).json()["data"]
    assert list(data) == [
        "user_profile",
        "history_summary",
        "rewritten_query",
        "recall",
        "rewrite_source",
        "rewrite_failure",
        "reranker",
        "fusion",
        "channels",
    ]
    nothing: dict[str, Any]
    for nothing in ({"expansions": []}, {"expansions": None}, {"keyword_query": None}, {"keyword_query": " "}):
        assert search(url, **nothing).content == search(url).content
    assert post(url, "/search", query="鱼油怎么吃", tenant_id="fivedoctors", top_k=100, score_threshold=0).content == (
        search(url).content
    )


@pytest.mark.parametrize(
    ("expansions", "detail"),
    [
        ([line("lex", "")], "expansions.0.text: String should have at least 1 character"),
        ([line("lex", "好"), line("vec", " \n\u3000")], "expansions.1.text: String should have at least 1 character"),
        ([line("sql", "x")], "expansions.0.kind: Input should be 'lex', 'vec' or 'hyde'"),
        ([line("LEX", "x")], "expansions.0.kind: Input should be 'lex', 'vec' or 'hyde'"),
        ([{"text": "x"}], "expansions.0.kind: Field required"),
        ([{"kind": "lex"}], "expansions.0.text: Field required"),
        ([line("lex", "x") | {"weight": 9}], "expansions.0.weight: Extra inputs are not permitted"),
        ([line("hyde", "长" * 5000)], "expansions.0.text: String should have at most 2000 characters"),
        (
            [line("lex", "x")] * 200,
            "expansions: List should have at most 8 items after validation, not 200",
        ),
        (["lex: 鱼油"], "expansions.0: Input should be a valid dictionary or object to extract fields from"),
        ("lex: 鱼油", "expansions: Input should be a valid list"),
        ({"lex": "鱼油"}, "expansions: Input should be a valid list"),
        ([None], "expansions.0: Input should be a valid dictionary or object to extract fields from"),
        ([line("lex", 5)], "expansions.0.text: Input should be a valid string"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("path", BOTH_PATHS)
def test_lines_that_cannot_be_are_refused_in_one_line(url: str, path: str, expansions: Any, detail: str) -> None:
    response = post(url, path, query="鱼油", tenant_id="fivedoctors", expansions=expansions)
    assert (response.status_code, response.json()) == (422, {"detail": detail})


@pytest.mark.parametrize(
    "text",
    ["؟كيف أتناول زيت السمك", "fish oil 鱼油 זמן", "？！", "\u202eabc\u202c", "😀", "长" * 2000, "a b\nc\td", "\x00"],
)
def test_any_text_of_a_line_is_searched(url: str, text: str) -> None:
    response = search(url, expansions=[line(kind, text) for kind in ("lex", "vec", "hyde") * 2])
    assert response.status_code == 200 and response.json()["data"]["recall"]


def test_eight_long_lines_stay_within_the_bounds_of_one_query() -> None:
    lines = [Expansion("lex", "".join(chr(0x4E00 + 2000 * n + i) for i in range(2000))) for n in range(8)]
    tokens, weights = keyword_weights(channel_texts(Rewrite("鱼油", "query"), "", lines))
    assert len(tokens) == len(set(tokens)) == MOST_TOKENS == len(weights)


def test_hyde_is_embedded_as_a_passage_and_vec_as_a_query(tmp_path: Path) -> None:
    with loopback_llm() as llm:
        embedder = embedder_maker(f"{llm}#multilingual-e5-small").fit([])
        rows = embedder.embed_lines(["甲", "乙"], ["丙", " "])
        assert [asked["input"] for asked in llm.requests[1:]] == [["query: 甲", "query: 乙"], ["passage: 丙"]]
        np.testing.assert_allclose(rows[1], embedder.embed_query("乙"), atol=1e-6)
        assert rows.shape[0] == 4 and not rows[3].any()
    folder = save_sentence_transformer(tmp_path / "multilingual-e5-small", "鱼油钙片怎么吃")
    model = embedder_maker(str(folder)).fit([])
    rows = model.embed_lines(["鱼油"], ["钙片"])
    np.testing.assert_allclose(rows[0], model.embed_query("鱼油"), atol=1e-5)
    np.testing.assert_allclose(rows[1], model.embed(["钙片"])[0], atol=1e-5)
    hashing: HashingEmbedder = HashingMaker().fit(["鱼油"])
    assert hashing.embed_lines(["鱼油"], []).shape == (1, hashing.dimension)


def test_an_embedder_that_fails_leaves_its_kinds_unsearched(tmp_path: Path) -> None:
    working = True

    def embed(body: dict[str, Any]) -> object:
        texts = body["input"]
        rows = [{"index": place, "embedding": embed_text(text)} for place, text in enumerate(texts)]
        return {"data": rows} if working else Fault(status=500)

    with loopback_llm(embed=embed) as llm:
        shop = Shop(tmp_path / "data", {"a": "鱼油每日两粒", "b": "七天内可以退货"}, {}, f"{llm}#multilingual-e5-small")
        lines = (Expansion("lex", "退货"), Expansion("vec", "怎么退"), Expansion("hyde", "七天内可以退"))
        found = shop.ask("鱼油", expansions=lines)
        assert set(searched_kinds(lines, found.channels).values()) == {"searched"}
        asked = [body["input"] for body in llm.requests[-2:]]
        assert asked == [["query: 鱼油", "query: 怎么退"], ["passage: 七天内可以退"]]
        working = False
        found = shop.ask("鱼油", expansions=lines)
        states = searched_kinds(lines, found.channels)
        assert states["lex"] == "searched" and {hit.doc_id for hit in found.hits} == {"a", "b"}
        assert states["vec"] == states["hyde"] and states["vec"].startswith("not searched: dense fell back: ")
        shop.close()


# A rewrite in two texts: one for the keyword channel, one for the dense one


def test_a_pair_gives_each_channel_its_text(url: str) -> None:
    pair = {"rewritten_query": "褪黑素睡前半小时食用", "keyword_query": "鱼油 发票"}
    data = search(url, **pair).json()["data"]
    assert (data["rewritten_query"], data["keyword_query"], data["rewrite_source"]) == (*pair.values(), "given")
    assert scores(url, "keyword", **pair) == scores(url, "keyword", query="鱼油 发票")
    assert scores(url, "dense", **pair) == scores(url, "dense", query="褪黑素睡前半小时食用")
    lines = [line("lex", "钙片")]
    both = scores(url, "keyword", **pair, expansions=lines)
    assert both["1-usage"] > scores(url, "keyword", **pair).get("1-usage", 0)


def test_a_keyword_text_alone_is_no_pair(url: str) -> None:
    for beside in ({}, {"rewritten_query": " "}):
        response = search(url, keyword_query="鱼油", **beside)
        assert response.status_code == 422
        assert response.json() == {"detail": "keyword_query: Value error, rewritten_query is missing beside it"}
    assert search(url, rewritten_query="鱼油", keyword_query="长" * 4001).status_code == 422


@pytest.mark.parametrize(
    ("answer", "keyword_query", "failure"),
    [
        ({"keyword_query": " 鱼油 发票 "}, "鱼油 发票", ""),
        ({"keyword_query": None}, None, ""),
        ({"keyword_query": ""}, None, ""),
        ({"keyword_query": ["鱼油"]}, None, "rewriter: its keyword_query is no text"),
    ],
)
def test_the_tenants_rewriter_may_answer_with_a_pair(
    tmp_path: Path, answer: dict[str, Any], keyword_query: str | None, failure: str
) -> None:
    add_knowledge_base(tmp_path, "fivedoctors", HEALTH)
    with loopback_llm(rewrite=lambda body: {"rewritten_query": "褪黑素睡前食用", **answer}) as llm:
        settings = ServiceSettings(default=TenantSettings(rewriter_url=llm.removesuffix("/v1")))
        with serving(tmp_path, settings) as url:
            data = search(url, debug=True).json()["data"]
            searched = len(llm.requests)
            expanded = search(url, expansions=[line("lex", "鱼油")]).json()["data"]
            assert (expanded["rewrite_source"], len(llm.requests)) == ("query", searched)
    assert data.get("keyword_query") == keyword_query and data["rewrite_failure"] == failure
    assert data["rewritten_query"] == ("鱼油怎么吃" if failure else "褪黑素睡前食用")
    if keyword_query:
        best = min(data["recall"], key=lambda hit: hit["channels"].get("keyword", {"rank": 999})["rank"])
        assert best["doc_id"] == "0-invoice"
