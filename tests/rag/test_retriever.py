"""One retrieval in every setting of its switches, on a real index, with real (tiny or scripted) models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase
from rag.catalogue.token_statistics import TokenStatistics
from rag.documents.records import Document, Passage
from rag.documents.tokenizer import query_token_ids
from rag.index.indexer import Indexer, engine_of
from rag.models.embedder import embedder_maker
from rag.models.language_model import LanguageModel, LanguageModelSettings
from rag.models.reranker import open_reranker
from rag.models.rewriter import Rewriter
from rag.retrieval.channels import CHANNELS, Channels
from rag.retrieval.lexical_reranker import LexicalReranker, calibrate
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import Retrieval, SearchRequest
from tests.support.loopback_llm import Fault, loopback_llm

TEXTS = {
    "fish-oil": "鱼油建议每日两粒，随餐服用。",
    "calcium": "钙片建议每日一片，睡前服用。",
    "refund": "未拆封的产品七天内可以退货。",
    "storage": "请置于阴凉干燥处，避免阳光直射。",
    "invoice": "下单时填写抬头即可开具电子发票。",
}


class Shop:
    """A small knowledge base, indexed."""

    def __init__(self, folder: Path, texts: dict[str, str], questions: dict[str, tuple[str, ...]], retriever: str):
        self.catalogue = Catalogue(folder)
        self.name = self.catalogue.create_knowledge_base("shop", "default").name
        documents = [Document(key, (Passage(key, text, questions.get(key, ())),)) for key, text in texts.items()]
        self.catalogue.put_documents(self.kb.id, documents)
        self.indexer = Indexer(self.catalogue, engine_of(folder, None), embedder_maker(retriever))
        self.indexer.rebuild(self.kb, lambda share: None)

    @property
    def kb(self) -> KnowledgeBase:
        found = self.catalogue.find_knowledge_base("shop", "default")
        assert found is not None
        return found

    def ask(self, query: str, models: dict[str, Any] | None = None, **request: Any) -> Retrieval:
        async def run() -> Retrieval:
            made = {name: make() for name, make in (models or {}).items()}
            try:
                retriever = Retriever(self.catalogue, self.indexer, **made)
                return await retriever.retrieve(self.kb, SearchRequest(query, "shop", **request))
            finally:
                for model in made.values():
                    await model.aclose()

        return asyncio.run(run())

    def close(self) -> None:
        self.indexer.close()
        self.catalogue.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("shop") / "data", TEXTS, {"refund": ("买错了怎么办",)}, "hashing")
    yield made
    made.close()


def keys(retrieval: Retrieval) -> list[str]:
    return [hit.doc_id for hit in retrieval.hits]


def language_model(url: str) -> Any:
    return lambda: LanguageModel(LanguageModelSettings(url, "tiny"))


def test_relevance_is_the_calibrated_share_of_rare_tokens() -> None:
    passages = [np.unique(np.array(query_token_ids(text), np.uint32)) for text in ("鱼油", "鱼", "钙片")]
    reranker = LexicalReranker(TokenStatistics.count(passages))
    full, part, none = reranker.score("鱼油", "", passages)
    assert full == pytest.approx(1.0) and none == 0 and 0 < part < full
    idf = {n: np.log1p((3 - n + 0.5) / (n + 0.5)) for n in (1, 2)}
    asked = [2 if token in set(passages[1]) else 1 for token in query_token_ids("鱼油")]
    assert part == pytest.approx(calibrate(np.float32(idf[2] / sum(idf[n] for n in asked))), abs=1e-6)
    with_context = reranker.score("鱼油", "钙片", passages)
    assert with_context[2] > 0 and with_context[0] < 1
    assert reranker.score("鱼油", "", []).shape == (0,)


def test_both_channels_report_their_ranks(shop: Shop) -> None:
    best = shop.ask("鱼油每天几粒").hits[0]
    assert best.doc_id == "fish-oil" and best.score == 1.0
    assert {name: at.rank for name, at in best.channels.items()} == {"keyword": 1, "dense": 1}


@pytest.mark.parametrize("left", ["dense", "keyword"])
def test_a_single_channel_gives_its_own_order(shop: Shop, left: str) -> None:
    other = "keyword" if left == "dense" else "dense"
    found = shop.ask("每日服用", channels=Channels(**{other: False}), top_k=10)
    assert found.channels[other] == "off" and found.channels[left] == "on"
    assert [hit.channels[left].rank for hit in found.hits] == list(range(1, len(found.hits) + 1))
    assert {tuple(hit.channels) for hit in found.hits} == {(left,)}


def test_without_any_channel_nothing_is_found(shop: Shop) -> None:
    found = shop.ask("鱼油", channels=Channels(dense=False, keyword=False))
    assert found.hits == [] and found.channels["dense"] == found.channels["keyword"] == "off"


def test_a_question_leads_to_its_passage_only_while_it_is_on(shop: Shop) -> None:
    found = shop.ask("买错了怎么办", debug=True)
    assert keys(found)[0] == "refund" and found.hits[0].matched_question == "买错了怎么办"
    assert len(keys(found)) == len(set(keys(found)))
    without = shop.ask("买错了怎么办", channels=Channels(doc2query=False), debug=True, top_k=10)
    assert without.channels["doc2query"] == "off"
    assert {hit.matched_question for hit in without.hits} == {None}
    assert [tuple(hit.channels) for hit in without.hits if hit.doc_id == "refund"] == [("dense",)]


def test_what_is_not_there_says_so(shop: Shop) -> None:
    states = shop.ask("鱼油").channels
    assert list(states) == list(CHANNELS)
    assert states["query2doc"] == "unavailable: no language model is configured"
    assert states["rerank"] == "unavailable: no cross-encoder is configured"
    assert states["rewrite"] == "unavailable: no rewriter is configured"
    everything_off = shop.ask("鱼油", channels=Channels(query2doc=False, rerank=False, rewrite=False)).channels
    assert {everything_off[name] for name in ("query2doc", "rerank", "rewrite")} == {"off"}


def test_an_imagined_passage_finds_what_the_query_does_not(shop: Shop) -> None:
    with loopback_llm(lambda body: "下单时填写抬头，即可开具电子发票；发票随货寄出或者发到邮箱。") as url:
        models = {"language_model": language_model(url)}
        found = shop.ask("报销", models, channels=Channels(dense=False))
        assert found.channels["query2doc"] == "on" and "发票" in found.pseudo_document
        assert keys(found)[0] == "invoice"
        shop.ask("报" * 61, models)
        shop.ask("报销", models, channels=Channels(query2doc=False))
        assert len(url.requests) == 1, "not asked for a long query, nor when it is off"
    assert "invoice" not in keys(shop.ask("报销", channels=Channels(dense=False)))


def test_the_query_outweighs_what_was_imagined(shop: Shop) -> None:
    with loopback_llm(lambda body: "未拆封的产品七天内可以退货，其余情形另行说明并以页面公示内容为准") as url:
        found = shop.ask("鱼油建议每日两粒", {"language_model": language_model(url)}, channels=Channels(dense=False))
    assert keys(found)[:2] == ["fish-oil", "refund"]


@pytest.mark.parametrize("fault", [Fault(delay=5), Fault(status=500), Fault(body="no json"), Fault(empty_choices=True)])
def test_a_failing_language_model_leaves_the_query(shop: Shop, fault: Fault) -> None:
    with loopback_llm(lambda body: fault) as url:
        found = shop.ask("鱼油每天几粒", {"language_model": language_model(url)})
    assert found.channels["query2doc"].startswith("fell back: ") and found.pseudo_document == ""
    assert keys(found) == keys(shop.ask("鱼油每天几粒"))


def test_a_reranker_reads_the_users_words_and_orders_the_hits(shop: Shop) -> None:
    asked: list[dict[str, Any]] = []

    def prefer_invoices(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        scores = [0.9 if "发票" in text else 0.1 for text in body["documents"]]
        return {"results": [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]}

    with loopback_llm(rerank=prefer_invoices) as url:
        models = {"reranker": lambda: open_reranker(f"{url}#judge")}
        found = shop.ask("鱼油", models, rewritten_query="鱼油 发票", context="我在问报销")
        assert keys(found)[0] == "invoice" and found.hits[0].reranker_score == 0.9
        assert found.channels["rerank"] == "on" and "judge" in found.reranker
        assert found.hits[0].score < 1, "the fused score stays what it was"
        assert "鱼油" in asked[0]["query"] and "报销" in asked[0]["query"] and "发票" not in asked[0]["query"]
        above = shop.ask("鱼油", models, rewritten_query="鱼油 发票", score_threshold=0.5)
        assert keys(above) == ["invoice"]
    with loopback_llm(rerank=lambda body: Fault(status=503)) as url:
        fallen = shop.ask("鱼油", {"reranker": lambda: open_reranker(f"{url}#judge")})
    assert fallen.channels["rerank"].startswith("fell back: ") and fallen.reranker == "lexical-coverage-v1"
    assert keys(fallen) == keys(shop.ask("鱼油"))


def test_a_rewriter_that_is_gone_leaves_the_query(shop: Shop) -> None:
    found = shop.ask("鱼油", {"default_rewriter": lambda: Rewriter("http://127.0.0.1:9", 1.0)})
    assert found.rewrite.source == "query" and found.channels["rewrite"].startswith("fell back: rewriter: ")
    given = shop.ask("鱼油", {"default_rewriter": lambda: Rewriter("http://127.0.0.1:9", 1.0)}, rewritten_query="发票")
    assert given.channels["rewrite"] == "given" and keys(given)[0] == "invoice"


def test_a_dense_model_that_does_not_answer_leaves_the_keywords(tmp_path: Path) -> None:
    with loopback_llm() as url:
        shop = Shop(tmp_path / "data", TEXTS, {}, f"{url}#embedding")
        assert shop.ask("鱼油每天几粒").channels["dense"] == "on"
    found = shop.ask("鱼油每天几粒")
    assert found.channels["dense"].startswith("fell back: ") and keys(found)[0] == "fish-oil"
    shop.close()


def test_deleted_and_new_documents_show_at_once_after_catching_up(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", TEXTS, {}, "hashing")
    shop.ask("鱼油")
    shop.catalogue.delete_document(shop.kb.id, "fish-oil")
    assert "fish-oil" not in keys(shop.ask("鱼油每日两粒", top_k=10)), "gone before the index knows"
    shop.catalogue.put_documents(shop.kb.id, [Document("new", (Passage("new", "鱼油新包装上市。"),))])
    shop.indexer.catch_up(shop.kb)
    assert keys(shop.ask("鱼油"))[0] == "new"
    shop.close()


def test_an_empty_knowledge_base_has_no_hits(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    kb = catalogue.create_knowledge_base("shop", "default")
    indexer = Indexer(catalogue, engine_of(tmp_path, None), embedder_maker("hashing"))
    found = asyncio.run(Retriever(catalogue, indexer).retrieve(kb, SearchRequest("鱼油", "shop")))
    assert found.hits == [] and found.channels["keyword"] == "unavailable: nothing is indexed yet"


def test_top_k_reaches_beyond_the_usual_depth(tmp_path: Path) -> None:
    texts = {f"p{n}": f"鱼油说明第{n}条" for n in range(80)}
    shop = Shop(tmp_path / "data", texts, {key: ("鱼油怎么吃", "鱼油几粒") for key in texts}, "hashing")
    assert len(set(keys(shop.ask("鱼油", top_k=80)))) == 80
    assert len(keys(shop.ask("鱼油", top_k=3))) == 3
    shop.close()


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("iPhone 14手机壳", "case14"),
        ("iphone14 壳", "case14"),
        ("SKUA1004", "part4"),
        ("SKU A1005", "part5"),
        ("鈣片什麼時候吃", "calcium"),
        ("維生素B-12", "b12"),
    ],
)
def test_codes_and_traditional_characters_find_their_passage_first(tmp_path: Path, query: str, best: str) -> None:
    texts = TEXTS | {f"case{n}": f"iPhone{n}手机壳，防摔，不发黄。" for n in (11, 12, 13, 14, 15)}
    texts |= {f"part{n}": f"配件 SKU-A100{n}，单件包装。" for n in (3, 4, 5)}
    texts |= {"b12": "维生素B12片每日一片。", "b1": "维生素B1片每日一片。", "b6": "维生素B6片每日一片。"}
    made = Shop(tmp_path / "data", texts, {}, "hashing")
    found = keys(made.ask(query))
    made.close()
    assert found[0] == best
