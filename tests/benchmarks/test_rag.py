"""The retrieval and load benchmarks: what they compare is comparable, and they run to their last line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from benchmarks import rag_load, retrieval
from benchmarks.rag_load_runs.texts import Question, SyntheticText
from benchmarks.rag_load_runs.traffic import _Clients
from benchmarks.retrieval_runs.peers import Bm25
from benchmarks.retrieval_runs.runs import EngineRuns, switched_on
from benchmarks.retrieval_runs.sets import FOLDS, fold_of, read_retrieval_set
from rag.models.embedder import embedder_maker
from tests.support.loopback_llm import loopback_llm
from tests.support.scripted_service import ScriptedService, answer, status

PRODUCTS = ["鱼油", "钙片", "益生菌", "叶黄素", "蛋白粉", "褪黑素", "氨糖", "葡萄籽"]
TOPICS = {
    "usage": ("每日两粒，建议随餐服用，温水送服", "{}怎么吃", "刚买了{}，不知道一天吃几粒，饭前还是饭后"),
    "storage": ("请置于阴凉干燥处，避免阳光直射", "{}怎么保存", "{}放在窗台上晒到太阳要紧吗"),
    "price": ("一瓶六十粒，单价一百二十八元", "{}多少钱", "想知道{}一瓶卖多少，有没有优惠"),
}


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "zh_products"
    folder.mkdir()
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for product in PRODUCTS:
        for topic, (text, query, description) in TOPICS.items():
            key = f"{product}-{topic}"
            corpus.append({"_id": key, "title": "", "text": f"{product}：{text}。"})
            queries.append(
                {"_id": f"q-{key}", "text": query.format(product), "descriptions": [description.format(product)]}
            )
            qrels.append(f"q-{key}\t{key}\t1")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines + "\n", encoding="utf-8")
    (folder / "qrels.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    return folder


def test_keys_of_a_fold_hold_no_text_that_is_asked_in_it(beir):
    one = read_retrieval_set(beir)
    texts = one.queries.texts
    for fold in range(FOLDS):
        asked = {query for query, text in texts.items() if fold_of(text) == fold}
        keys = {q for document in one.with_keys(texts.keys() - asked) for p in document.passages for q in p.questions}
        assert asked and keys == {texts[query] for query in texts.keys() - asked}
        assert not keys & {texts[query] for query in asked}


def test_keyword_channel_ranks_as_bm25_over_the_same_tokens_does(beir, tmp_path):
    one = read_retrieval_set(beir)
    # Queries that name no token twice: all weigh the same in both.
    queries = one.variants()["text"]
    runs = EngineRuns(tmp_path / "data", embedder_maker("hashing"), None, None)
    runs.build(one.documents)
    ours = runs.rank(queries, switched_on("keyword"), lambda: None)
    runs.close()
    theirs = Bm25(one).rank(queries)
    assert [keys[0] for keys in ours.values()] == [keys[0] for keys in theirs.values()]
    assert not runs.failures


def test_retrieval_prints_every_way_of_asking_and_the_claims(beir, capsys):
    assert retrieval.main(["--beir", str(beir)]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(out.splitlines()[-1])
    assert list(metrics) == [f"zh_products/{variant}" for variant in ("text", "description", "both")]
    asked = metrics["zh_products/description"]
    assert asked["people's questions as keys, R@10"] == pytest.approx(
        asked["hybrid + people's questions as keys: R@10"] - asked["hybrid: R@10"], abs=2e-4
    )
    # A text is never asked where it is a key.
    assert not [name for name in metrics["zh_products/text"] if name.startswith("hybrid + people's")]
    assert "24 queries" in out and "in the order of lexical relevance" in out


def test_models_are_measured_where_they_are_given(beir, capsys):
    with loopback_llm(lambda body: "每日两粒，随餐服用。" * 4) as url:
        options = ["--llm_url", url, "--rewrite_model", "m", "--reranker", f"{url}#r"]
        assert retrieval.main(["--beir", str(beir), *options]) == 0
        asked = {request["path"] for request in url.requests}
    out = capsys.readouterr().out
    assert asked == {"/v1/chat/completions", "/v1/rerank"} and "fell back" not in out
    metrics = json.loads(out.splitlines()[-1])["zh_products/both"]
    assert {"hybrid + query2doc: R@10", "hybrid + cross-encoder: R@10"} <= metrics.keys()


def test_a_set_without_answers_is_one_line(beir, capsys):
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nnobody\tnothing\t1\n")
    assert retrieval.main(["--beir", str(beir)]) == 2
    error = capsys.readouterr().err
    assert "no query has a relevant passage" in error and error.count("\n") == 1


@pytest.mark.full
def test_synthetic_texts_are_seeded_and_differ_between_tenants():
    one, same, other = SyntheticText(0), SyntheticText(0), SyntheticText(1)
    assert one.passage("a", 3) == same.passage("a", 3) != other.passage("a", 3)
    assert len({one.passage(tenant, n) for tenant in "ab" for n in range(50)}) == 100
    asked = [list(one.questions(["a", "b"], 50, 20, start)) for start in (0, 1)]
    assert {question.tenant for question in asked[0]} == {"a", "b"} and not set(asked[0]) & set(asked[1])


def test_a_client_counts_every_answer_that_is_none():
    hits = {"data": {"recall": [{"content": "鱼油每日一粒"}]}}
    script = [answer(hits), status("500 Internal Server Error"), answer({"data": {"recall": []}})]

    async def ask() -> tuple[list[list[str]], list[str]]:
        async with ScriptedService(script) as service, aiohttp.ClientSession(service.url) as session:
            clients = _Clients(session)
            return [await clients.search(Question("a", "鱼油")) for _ in script], clients.traffic.errors

    found, errors = asyncio.run(ask())
    assert found == [["鱼油每日一粒"], [], []]
    assert [error.split()[1] for error in errors] == ["500", "nothing"]


@pytest.mark.full
def test_load_runs_to_its_last_line_without_an_error(capfd):
    options = ["--passages", "120", "--tenants", "2", "--minutes", "0.05", "--queries", "12"]
    assert rag_load.main(options) == 0
    metrics = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert metrics["errors"] == 0 and metrics["hits_in_common"] > 0.95
    assert metrics["mixed_searches"] > 0 and metrics["mixed_writes"] > 0
    assert all(metrics[f"engine_qps_over_by_hand_{clients}"] > 0 for clients in (1, 10, 50))
