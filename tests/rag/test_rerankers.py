"""Rerankers: real tiny models in folders, a real endpoint on loopback."""

import asyncio
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.documents.records import IngestError
from rag.models.embedder import embedder_maker
from rag.models.failure import ModelFailure
from rag.models.reranker import open_reranker
from tests.support.loopback_llm import Fault, loopback_llm, overlap
from tests.support.ports import refusing_url
from tests.support.tiny_models import save_bert, save_cross_encoder, save_qwen3, save_sentence_transformer

TEXTS = ["鱼油每日一粒，饭后服用。", "孕妇慎用退烧药", "Omega-3 1.5 g daily", ""]
ALPHABET = "".join(TEXTS) + "abcdefghijklmnopqrstuvwxyz:?？我能吃吗"
LINE = r"^[^\n]+$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return save_cross_encoder(root / "reranker", ALPHABET, activation=torch.nn.Identity())


# A CrossEncoder folder


def score(reranker, query, context, passages):
    async def once():
        try:
            return await reranker.score(query, context, passages)
        finally:
            await reranker.aclose()

    return asyncio.run(once())


def test_a_reranker_in_a_folder_gives_shares_whatever_activation_it_was_saved_with(folder):
    scores = score(open_reranker(str(folder)), "鱼油", "", TEXTS)
    assert scores.shape == (len(TEXTS),) and scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all() and len(set(scores)) == len(TEXTS)
    from sentence_transformers import CrossEncoder

    logits = CrossEncoder(str(folder), local_files_only=True).predict([("鱼油", text) for text in TEXTS])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_a_reranker_reads_the_context_and_keeps_the_query_under_a_long_one(folder):
    def scores(query, context):
        return score(open_reranker(str(folder)), query, context, TEXTS[:2])

    assert not np.allclose(scores("能吃吗", "孕妇"), scores("能吃吗", ""))
    np.testing.assert_array_equal(scores("能吃吗", "孕妇" * 5000), scores("能吃吗", "孕妇" * 400))
    np.testing.assert_array_equal(scores("能吃吗" * 4000, "孕妇"), scores("能吃吗" * 4000, ""))


@pytest.mark.parametrize("generative", [False, True])
def test_a_qwen3_reranker_scores_a_passage_alone_as_among_others(tmp_path, generative):
    folder = str(save_qwen3(tmp_path / "qwen3", ALPHABET, generative=generative))
    together = score(open_reranker(folder), "鱼油", "", TEXTS)
    alone = [score(open_reranker(folder), "鱼油", "", [text])[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert ((together > 0) & (together < 1)).all() and len(set(together)) == len(TEXTS)


def test_a_model_that_fails_on_a_batch_is_a_failure(tmp_path):
    folder = save_qwen3(tmp_path / "unpadded", ALPHABET, generative=False, padded=False)
    with pytest.raises(ModelFailure, match=LINE):
        score(open_reranker(str(folder)), "鱼油", "", TEXTS)


def test_no_passages_have_no_scores(folder):
    assert score(open_reranker(str(folder)), "鱼油", "", []).shape == (0,)


def test_calls_at_one_time_get_their_own_scores(folder):
    async def many():
        reranker = open_reranker(str(folder))
        together = await asyncio.gather(*(reranker.score(text, "", TEXTS) for text in TEXTS * 3))
        alone = [await reranker.score(text, "", TEXTS) for text in TEXTS]
        await reranker.aclose()
        return together, alone

    together, alone = asyncio.run(many())
    np.testing.assert_allclose(together, alone * 3, atol=1e-6)


def test_a_model_of_three_scores_is_refused_in_a_line(tmp_path):
    with pytest.raises(IngestError, match=r"^[^\n]+one score[^\n]+3$"):
        open_reranker(str(save_cross_encoder(tmp_path / "labels", ALPHABET, labels=3)))


@pytest.mark.parametrize("kind", ["sentence-transformers", "bare"])
def test_an_embedding_model_is_refused_as_a_reranker(tmp_path, kind):
    save = save_bert if kind == "bare" else save_sentence_transformer
    folder = save(tmp_path / "embedder", ALPHABET)
    with pytest.raises(IngestError, match=r"^[^\n]+no reranker[^\n]+$"):
        open_reranker(str(folder))


def test_a_reranker_of_one_constant_score_is_counted_each_time_and_logged_once(tmp_path, caplog):
    folder = save_cross_encoder(tmp_path / "flat", ALPHABET)
    tensors = {
        name: tensor * ("classifier" not in name) for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    async def twice():
        reranker = open_reranker(str(folder))
        await reranker.score("鱼油", "", TEXTS[:3] * 3)  # nine passages are too few to tell
        for _ in range(2):
            await reranker.score("鱼油", "", [*TEXTS, *TEXTS, *TEXTS])
        return reranker.constant_answers

    with caplog.at_level(logging.WARNING, logger="rag"):
        assert asyncio.run(twice()) == 2
    assert len([record for record in caplog.records if record.name.startswith("rag")]) == 1


def test_scores_that_are_no_numbers_fail(tmp_path):
    folder = save_cross_encoder(tmp_path / "nan", ALPHABET)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFailure, match=LINE):
        score(open_reranker(str(folder)), "鱼油", "", TEXTS)


# A rerank endpoint


@pytest.mark.parametrize("path", ["", "/rerank"])
def test_a_rerank_endpoints_scores_come_back_in_the_passages_order(path, monkeypatch):
    monkeypatch.setenv("RERANKER_API_KEY", "secret-key")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with loopback_llm() as url:
        scores = score(open_reranker(f"{url}{path}#bge-reranker"), "鱼油怎么吃", "孕妇", TEXTS[:3])
        (request,) = url.requests
        assert (request["model"], request["top_n"], request["documents"]) == ("bge-reranker", 3, TEXTS[:3])
        assert request["query"] == "孕妇\n鱼油怎么吃"
        assert url.headers[0]["authorization"] == "Bearer secret-key"
    assert scores == pytest.approx([overlap("孕妇\n鱼油怎么吃", text) for text in TEXTS[:3]])


def results(scores):
    return {"results": [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]}


def test_logits_that_are_declared_become_shares_wherever_they_lie():
    answers = [[2.0, -3.0], [0.2, 0.9]]

    async def twice(url):
        reranker = open_reranker(f"logits:{url}#m")
        return [await reranker.score("q", "", TEXTS[:2]) for _ in answers]

    with loopback_llm(rerank=lambda body: results(answers[len(url.requests) - 1])) as url:
        scores = asyncio.run(twice(url))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array(answers))), atol=1e-6)


def test_scores_around_one_stay_shares_and_one_beyond_is_refused_without_changing_the_scale():
    answers = [[1.0000001, 0.5], [6.2, 0.5], [-0.5, 0.5], [0.9, -1e-7]]

    async def ask(url):
        reranker = open_reranker(f"{url}#m")
        told = []
        for _ in answers:
            try:
                told.append([round(float(score), 6) for score in await reranker.score("q", "", TEXTS[:2])])
            except ModelFailure as failure:
                told.append(str(failure))
        return told

    with loopback_llm(rerank=lambda body: results(answers[len(url.requests) - 1])) as url:
        first, logit, negative, last = asyncio.run(ask(url))
    assert (first, last) == ([1.0, 0.5], [0.9, 0.0])
    assert "6.2 outside [0, 1]" in logit and "logits:URL#m" in logit and "-0.5 outside" in negative


@pytest.mark.parametrize(
    "answer",
    [
        Fault(status=500),
        Fault(status=307, body=""),
        Fault(body="{not json"),
        Fault(body="[]"),
        {"results": []},
        {"results": None},
        {"results": [{"index": 0, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 2, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": -1, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": "high"}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": None}]},
        Fault(body='{"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": NaN}]}'),
        {"results": ["0.5", "0.7"]},
    ],
)
def test_a_malformed_rerank_answer_fails_and_is_no_score(answer):
    with loopback_llm(rerank=lambda body: answer) as url, pytest.raises(ModelFailure, match=LINE):
        score(open_reranker(f"{url}#m"), "鱼油", "", TEXTS[:2])


@pytest.mark.parametrize("ask", ["embed", "rerank"])
def test_an_endpoint_that_is_not_there_fails(ask):
    with refusing_url() as url, pytest.raises(ModelFailure, match=LINE):
        if ask == "embed":
            embedder_maker(f"{url}/v1#m").fit([])
        else:
            score(open_reranker(f"{url}/v1#m"), "鱼油", "", TEXTS)


@pytest.mark.parametrize("reranker", ["bge-reranker", "http://127.0.0.1:1/v1", ""])
def test_what_is_no_reranker_is_refused_in_a_line(reranker):
    with pytest.raises(IngestError, match=LINE):
        open_reranker(reranker)
