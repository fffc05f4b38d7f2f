"""Embedders: real tiny models in folders, a real endpoint on loopback."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rag.documents.records import IngestError
from rag.models.embedder import embedder_maker
from rag.models.failure import ModelFailure
from rag.models.prompts import with_prompts
from rag.models.reranker import open_reranker
from tests.support.loopback_llm import EMBEDDING_DIMENSION, Fault, embed_all, embed_text, loopback_llm
from tests.support.tiny_models import save_sentence_transformer

TEXTS = ["鱼油每日一粒，饭后服用。", "孕妇慎用退烧药", "Omega-3 1.5 g daily", ""]
ALPHABET = "".join(TEXTS) + "abcdefghijklmnopqrstuvwxyz:?？我能吃吗"
LINE = r"^[^\n]+$"


def unit(vector):
    return np.asarray(vector, np.float32) / np.linalg.norm(vector)


# Hashing


def test_hashing_weighs_by_rarity_and_gives_unit_rows():
    embedder = embedder_maker("hashing").fit(iter(["鱼油软胶囊", "鱼油颗粒", "鱼油滴剂", "钙片"]))
    rows = embedder.embed(["鱼油", "鱼油钙片", "钙片", ""])
    assert rows.shape == (4, embedder.dimension) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-6)
    common, rare = rows[1] @ rows[0], rows[1] @ rows[2]
    assert rare > common > 0


def test_hashing_is_the_same_from_a_stream_longer_than_a_batch_as_counted_by_hand():
    texts = [f"第{i}条 {'鱼油' if i % 3 else '钙片'}" for i in range(5000)]
    embedder = embedder_maker("hashing").fit(text for text in texts)
    idf = np.frombuffer(embedder.state, np.float32)
    (buckets,) = np.nonzero(embedder.embed(["鱼油"])[0])
    in_texts = sum(
        np.count_nonzero(embedder.embed(texts[i : i + 500])[:, buckets], axis=0) for i in range(0, 5000, 500)
    )
    assert idf[buckets] == pytest.approx(np.log(5001 / (in_texts + 1)) + 1, rel=1e-6)


def test_hashing_from_its_state_embeds_alike():
    maker = embedder_maker("hashing")
    fitted = maker.fit(TEXTS)
    loaded = maker.load(fitted.state)
    assert (loaded.id, loaded.dimension) == (maker.id, fitted.dimension)
    np.testing.assert_array_equal(loaded.embed(TEXTS), fitted.embed(TEXTS))
    np.testing.assert_array_equal(loaded.embed_query(TEXTS[0]), fitted.embed(TEXTS)[0])


def test_hashing_knows_a_knowledge_base_without_texts_and_no_texts():
    embedder = embedder_maker("hashing").fit([])
    assert embedder.embed([]).shape == (0, embedder.dimension)
    assert np.isfinite(embedder.embed_query("😀\0")).all()


def test_a_damaged_hashing_state_is_refused():
    with pytest.raises(IngestError, match=LINE):
        embedder_maker("hashing").load(b"\0" * 12)


@pytest.mark.parametrize("retriever", ["bge-large-zh", "http://127.0.0.1:1/v1", "", "ftp://x#m"])
def test_what_is_no_retriever_is_refused_in_a_line(retriever):
    with pytest.raises(IngestError, match=LINE):
        embedder_maker(retriever)


# A sentence-transformers folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "plain": save_sentence_transformer(root / "embedder", ALPHABET),
        "prompted": save_sentence_transformer(root / "prompted", ALPHABET, prompts={"query": "查询: "}),
    }


def test_a_model_in_a_folder_gives_unit_rows_alike_at_each_opening(folders):
    maker = embedder_maker(str(folders["plain"]))
    embedder = maker.fit(TEXTS)
    rows = embedder.embed(TEXTS)
    assert rows.shape == (len(TEXTS), embedder.dimension) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimension)
    again = embedder_maker(str(folders["plain"])).load(embedder.state)
    assert again.id == maker.id == embedder.id
    np.testing.assert_allclose(again.embed(TEXTS[:1])[0], rows[0], atol=1e-6)


def test_queries_get_the_models_prompt_and_passages_do_not(folders):
    plain, prompted = (embedder_maker(str(folders[name])).fit([]) for name in ("plain", "prompted"))
    np.testing.assert_allclose(plain.embed_query(TEXTS[0]), plain.embed(TEXTS[:1])[0], atol=1e-5)
    np.testing.assert_allclose(prompted.embed(TEXTS[:1]), plain.embed(TEXTS[:1]), atol=1e-5)
    np.testing.assert_allclose(prompted.embed_query(TEXTS[0]), plain.embed(["查询: " + TEXTS[0]])[0], atol=1e-5)
    assert not np.allclose(prompted.embed_query(TEXTS[0]), prompted.embed(TEXTS[:1])[0], atol=1e-3)


@pytest.mark.parametrize("change", ["weights", "prompt", "name"])
def test_another_model_has_another_id(folders, tmp_path, change):
    other = shutil.copytree(folders["plain"], tmp_path / ("renamed" if change == "name" else folders["plain"].name))
    if change == "weights":
        tensors = load_file(other / "model.safetensors")
        tensors["pooler.dense.bias"][0] += 1  # same shapes, same sizes, one number
        save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    if change == "prompt":
        config = other / "config_sentence_transformers.json"
        config.write_text(config.read_text().replace('"query": ""', '"query": "为句子生成表示："'))
    assert embedder_maker(str(other)).id != embedder_maker(str(folders["plain"])).id


def test_large_weights_are_told_apart_without_reading_them_whole(tmp_path):
    from rag.models.model_folder import fingerprint

    weights = tmp_path / "model.safetensors"
    content = bytearray(20_000_000)
    weights.write_bytes(content)
    before = fingerprint(tmp_path)
    content[10_000_000:11_000_000] = b"\1" * 1_000_000
    weights.write_bytes(content)
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("opening", [embedder_maker, open_reranker])
def test_a_folder_without_a_model_is_refused_in_a_line(tmp_path, opening):
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(IngestError, match=LINE):
        opening(str(tmp_path))


# An embeddings endpoint


def test_an_endpoint_learns_its_dimension_and_keeps_the_order_over_batches():
    texts = [f"第{i}条{'鱼油' * (i % 7)}" for i in range(150)]
    texts[70] = " "
    reversed_rows = lambda body: (answer := embed_all(body)) | {"data": answer["data"][::-1]}  # noqa: E731
    with loopback_llm(embed=reversed_rows) as url:
        maker = embedder_maker(f"{url}#bge-m3")
        embedder = maker.fit(texts)
        rows = embedder.embed(texts)
        assert embedder.dimension == EMBEDDING_DIMENSION and embedder.embed_query("鱼油").shape == (
            EMBEDDING_DIMENSION,
        )
        assert {request["model"] for request in url.requests} == {"bge-m3"}
        assert max(len(request["input"]) for request in url.requests) <= 64
        asked = len(url.requests)
        assert maker.load(embedder.state).dimension == EMBEDDING_DIMENSION and len(url.requests) == asked
    assert not rows[70].any()
    for place in (0, 63, 64, 149):
        np.testing.assert_allclose(rows[place], unit(embed_text(texts[place])), atol=1e-6)


def test_an_endpoint_gets_the_key_of_the_environment_and_no_proxy(monkeypatch):
    monkeypatch.setenv("EMBEDDING_API_KEY", "secret-key")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with loopback_llm() as url:
        maker = embedder_maker(f"{url}#m")
        maker.fit([])
        assert url.headers[0]["authorization"] == "Bearer secret-key"
        assert "secret-key" not in maker.id


def test_an_endpoint_is_asked_again_after_a_server_error():
    answers = [Fault(status=503), Fault(status=429)]
    with loopback_llm(embed=lambda body: answers.pop() if answers else embed_all(body)) as url:
        assert embedder_maker(f"{url}#m").fit([]).dimension == EMBEDDING_DIMENSION
        assert len(url.requests) == 3


def test_a_query_is_asked_for_once_only():
    with loopback_llm(embed=lambda body: Fault(status=503)) as url:
        with pytest.raises(ModelFailure, match=LINE):
            embedder_maker(f"{url}#m").load(b"2").embed_query("鱼油")
        assert len(url.requests) == 1


def rows_of(*vectors):
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "model": "m", "data": data}


@pytest.mark.parametrize(
    "answer",
    [
        Fault(status=401),
        Fault(body="{not json"),
        Fault(body="[]"),
        {"data": []},
        {"data": None},
        {},
        rows_of([1.0]),
        rows_of([1.0], [1.0, 2.0]),
        rows_of([], []),
        rows_of(["a"], ["b"]),
        rows_of([1.0, 2.0], [None, 1.0]),
        rows_of([1.0] * 8, [2.0] * 8),
    ],
)
def test_an_endpoint_without_a_vector_for_each_text_fails(answer):
    with loopback_llm(embed=lambda body: answer) as url:
        embedder = embedder_maker(f"{url}#m").load(b"2")
        with pytest.raises(ModelFailure, match=LINE):
            embedder.embed(["鱼油", "钙片"])


def test_queries_and_passages_get_the_prompts_that_the_model_wants() -> None:
    with loopback_llm() as url:
        address = with_prompts(f"{url}#e5", "query: ", "passage: ")
        maker = embedder_maker(address)
        embedder = maker.fit([])
        embedder.embed(["鱼油", " "])
        embedder.embed_query("鱼油怎么吃\n")
        again = maker.load(embedder.state)
        again.embed_query("钙片")
        asked = [request["input"] for request in url.requests[1:]]
    assert asked == [["passage: 鱼油"], ["query: 鱼油怎么吃\n"], ["query: 钙片"]]
    assert maker.id == embedder.id == "endpoint:e5 with passage prompt 'passage: '"
    # The queries' prompt is in no stored vector.
    assert embedder_maker(with_prompts("http://127.0.0.1:9/v1#e5", "Instruct: 检索\nQuery:", None)).id == "endpoint:e5"
    assert with_prompts("hashing", "", None) == "hashing"
    with pytest.raises(IngestError, match="query_prompt: for a retriever behind URL#model"):
        with_prompts("hashing", "query: ", None)
    with pytest.raises(IngestError, match="prompt: neither query_prompt nor passage_prompt"):
        embedder_maker("http://127.0.0.1:9/v1#e5?prompt=x")
