"""Building an index: what is read, when it is rebuilt, what a half-finished or foreign one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rag.build_index import build_index, main
from rag.embedder import DIMENSION, HashingEmbedder
from rag.ingest import SNIPPET_LENGTH, IngestError, read_passages, split_snippets
from rag.lexical_reranker import LexicalReranker, calibrate
from rag.manifest import MANIFEST, SHARD, read_manifest
from rag.search import KnowledgeBase, fuse
from rag.tokenizer import query_token_ids, tokenize


def write_corpus(folder: Path, texts: dict[str, str], title: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"_id": doc_id, "title": title, "text": text}) for doc_id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


FISH_OIL = {"d1": "鱼油随餐服用，每日两粒。", "d2": "钙片建议睡前服用。", "d3": "益生菌需要冷藏保存。"}


def test_tokens_are_words_and_character_ngrams() -> None:
    tokens = tokenize("辅酶Q10怎么服用")
    assert {"服用", "服", "用", "怎么", "q10"} <= set(tokens)
    assert tokenize("Omega-3 1.5 g") == ["omega", "3", "1.5", "g"]
    assert tokenize("Ｑ１０") == ["q10"] and tokenize("витамин С") == ["витамин", "с"]
    assert tokenize("？！ … _") == []


def test_beir_documents_keep_their_id_and_stay_whole(tmp_path: Path) -> None:
    long_text = "鱼油的吃法。" * 200
    passages = read_passages(write_corpus(tmp_path / "kb", {"a": long_text, "b": " ", "c": "钙片"}, title="说明"))
    assert [p.doc_id for p in passages] == ["a", "b", "c"]
    assert passages[0].content == f"说明\n{long_text}"
    assert read_passages(write_corpus(tmp_path / "kb2", {"a": "x", "b": " ", "c": "——！"}))[-1].doc_id == "a"


def test_text_files_become_snippets_of_whole_sentences(tmp_path: Path) -> None:
    (tmp_path / "产品").mkdir()
    (tmp_path / "产品" / "faq.txt").write_text("鱼油随餐吃。\n钙片睡前吃。\n", encoding="utf-8")
    paragraph = "第一句话讲鱼油。" * 30 + "\n换行不断段。\n\n第二段。"
    (tmp_path / "windows.txt").write_bytes(paragraph.encode("gb18030"))
    passages = read_passages(tmp_path)
    assert [p.content for p in passages if p.doc_id.startswith("产品/faq.txt#")] == ["鱼油随餐吃。", "钙片睡前吃。"]
    windows = [p.content for p in passages if p.doc_id.startswith("windows.txt#")]
    assert windows == ["第一句话讲鱼油。" * 30 + "\n换行不断段。", "第二段。"]


def test_snippets_are_short_and_lose_nothing() -> None:
    text = "他问：“能一起吃吗？”医生说可以！" * 40 + "无标点" * 250
    snippets = split_snippets(text)
    assert max(map(len, snippets)) <= SNIPPET_LENGTH
    assert "".join(snippets) == text
    assert all(s[-1] in "”！？" for s in snippets[:2])


@pytest.mark.parametrize(
    ("corpus", "problem"),
    [
        ("", "corpus.jsonl: holds no text"),
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', "row 2: _id 'a' was given before"),
        ('{"_id": "a", "text": "x"}\n{"text": "y"}', "row 2: _id is missing"),
        ('{"_id": "a"}', "row 1: text is missing"),
        ("{oops", "row 1: not JSON"),
        ("[1]", "row 1: expected an object, found list"),
    ],
)
def test_a_bad_corpus_is_named_with_its_row(tmp_path: Path, corpus: str, problem: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(corpus, encoding="utf-8")
    with pytest.raises(IngestError) as error:
        read_passages(tmp_path)
    assert problem in str(error.value) and str(tmp_path) in str(error.value)


def test_an_empty_knowledge_base_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kb").mkdir()
    code = main(["--kb_dir", str(tmp_path / "kb"), "--out", str(tmp_path / "index"), "--tenant", "t"])
    assert code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'kb'}: holds neither corpus.jsonl nor any .txt file\n"
    assert not (tmp_path / "index").exists()


def test_rebuild_skips_what_is_current_and_swaps_what_is_not(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "indexes" / "t"
    assert build_index(kb_dir, out, "t")[1] is True
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert build_index(kb_dir, out, "t")[1] is False
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    serving = KnowledgeBase(out)
    write_corpus(kb_dir, {**FISH_OIL, "d4": "维生素D晒太阳也能补。"})
    assert build_index(kb_dir, out, "t")[1] is True
    # What was open keeps answering from the earlier index; what is opened now sees the new one.
    assert len(serving.search("维生素", "", "维生素", 10, 0)) == 3
    serving.close()
    reopened = KnowledgeBase(out)
    assert reopened.search("维生素", "", "维生素", 10, 0)[0].doc_id == "d4"
    reopened.close()
    assert [path.name for path in out.parent.iterdir()] == ["t"]

    assert build_index(kb_dir, out, "other")[1] is True
    assert read_manifest(out).tenant_id == "other"


def test_a_failed_build_leaves_the_earlier_index(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "index"
    build_index(kb_dir, out, "t")
    (kb_dir / "corpus.jsonl").write_text("{oops", encoding="utf-8")
    with pytest.raises(IngestError):
        build_index(kb_dir, out, "t")
    assert read_manifest(out).passages == 3


def test_out_that_is_no_index_is_left_alone(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(IngestError, match="exists and is no index"):
        build_index(kb_dir, out, "t")
    assert (out / "thesis.txt").read_text() == "mine"


def test_an_index_made_by_other_code_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(write_corpus(tmp_path / "kb", FISH_OIL), out, "t")
    manifest = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**manifest, "embedder_id": "bge-m3"}))
    with pytest.raises(IngestError, match=f"built with bge-m3, but this is {HashingEmbedder.id}"):
        KnowledgeBase(out)
    # … and the build command does not take it for current.
    assert build_index(tmp_path / "kb", out, "t")[1] is True


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "index"
    with pytest.raises(IngestError, match="no index there"):
        KnowledgeBase(out)
    build_index(write_corpus(tmp_path / "kb", FISH_OIL), out, "t")
    (out / SHARD).rename(out / "elsewhere")
    with pytest.raises(IngestError, match=r"shard: cannot be opened"):
        KnowledgeBase(out)


def test_equal_passages_come_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    texts = {f"d{i:02}": "鱼油随餐服用" for i in range(40)} | {"best": "鱼油什么时候服用最好，鱼油随餐服用"}
    orders = []
    for name in ("one", "two"):
        build_index(write_corpus(tmp_path / "kb", texts), tmp_path / name, "t")
        knowledge_base = KnowledgeBase(tmp_path / name)
        orders.append([hit.doc_id for hit in knowledge_base.search("鱼油", "", "鱼油什么时候服用最好", 41, 0)])
        knowledge_base.close()
    assert orders[0] == orders[1] == ["best", *(f"d{i:02}" for i in range(40))]


def test_fusion_is_weighted_and_breaks_ties_by_id() -> None:
    assert fuse(([3, 1], [3, 2]), (1.0, 1.0)) == [
        (3, pytest.approx(1.0)),
        (1, pytest.approx(61 / 62 / 2)),
        (2, pytest.approx(61 / 62 / 2)),
    ]
    assert [item for item, _ in fuse(([1, 2], [2, 1]), (1.0, 0.1))] == [1, 2]
    assert [item for item, _ in fuse(([1, 2], [2, 1]), (0.1, 1.0))] == [2, 1]


def test_embeddings_are_unit_vectors_that_survive_saving(tmp_path: Path) -> None:
    embedder = HashingEmbedder.fit(list(FISH_OIL.values()))
    vectors = embedder.embed(["鱼油怎么吃", "钙片"])
    assert vectors.shape == (2, DIMENSION) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    embedder.save(tmp_path / "embedder.npy")
    assert np.array_equal(HashingEmbedder.load(tmp_path / "embedder.npy").embed(["鱼油怎么吃", "钙片"]), vectors)


def test_reranker_measures_coverage_of_query_then_context() -> None:
    passages = ["鱼油随餐服用", "孕妇不宜服用鱼油", "益生菌冷藏保存"]
    reranker = LexicalReranker([np.array(query_token_ids(text), dtype=np.uint32) for text in passages])
    full, partial, none = reranker.score("鱼油随餐服用", "", [0, 1, 2])
    assert full == pytest.approx(1.0) and none == 0.0 and 0 < partial < full
    alone, pregnant = (reranker.score("鱼油怎么服用", context, [0, 1, 2]) for context in ("", "孕妇"))
    assert alone[0] == alone[1] > alone[2] and pregnant[1] > pregnant[0] and pregnant[2] == 0.0
    # What the query already says does not count again, and the context counts for a fifth of the whole.
    assert reranker.score("鱼油", "鱼油", [1]) == reranker.score("鱼油", "", [1])
    assert reranker.score("鱼油随餐服用", "冷藏", [0])[0] == pytest.approx(calibrate(np.float32(0.8)))
    # Nothing to cover: no evidence, not a perfect score.
    assert reranker.score("？", "", [0]).tolist() == [0.0]


def test_calibration_is_increasing_with_its_threshold_at_twelve_percent() -> None:
    scores = calibrate(np.linspace(0, 1, 101, dtype=np.float32))
    assert scores[0] == 0.0 and scores[-1] == pytest.approx(1.0)
    assert (np.diff(scores) > 0).all()
    assert scores[12] == pytest.approx(0.6)
