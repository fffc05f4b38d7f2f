"""The build command: what is built anew, what is left alone, what a bad or foreign folder does."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from rag import write_questions
from rag.build_index import build_index, main
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import IngestError
from rag.index.engine import Space
from rag.index.indexer import Indexer, engine_of
from rag.models.embedder import DEFAULT_RETRIEVER, embedder_maker
from rag.settings import ServiceSettings
from tests.support.loopback_llm import loopback_llm
from tests.support.loopback_qdrant import qdrant_server
from tests.support.rag_server import search, serving

FISH_OIL = {"d1": "鱼油随餐服用，每日两粒。", "d2": "钙片建议睡前服用。", "d3": "益生菌需要冷藏保存。"}


def write_corpus(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"_id": doc_id, "title": "", "text": text}) for doc_id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def live_version(out: Path, tenant_id: str = "t") -> int | None:
    catalogue = Catalogue(out)
    try:
        kb = catalogue.find_knowledge_base(tenant_id, "default")
        return kb.live_version if kb else None
    finally:
        catalogue.close()


def versions(out: Path) -> set[str]:
    return {path.name for path in (out / "versions").iterdir()}


def test_a_build_skips_what_is_current_and_replaces_what_is_not(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data" / "all"
    kb, built, _ = build_index(kb_dir, out, "t")
    assert (
        built and kb.passages == 3 and kb.live_version == live_version(out) and versions(out) == {str(kb.live_version)}
    )
    before = {path: path.stat().st_mtime_ns for path in (out / "versions").rglob("*")}
    assert build_index(kb_dir, out, "t") == (kb, False, [])
    assert {path: path.stat().st_mtime_ns for path in (out / "versions").rglob("*")} == before

    write_corpus(kb_dir, {"d1": "鱼油早上服用。", "d2": FISH_OIL["d2"], "d4": "维生素D晒太阳也能补。"})
    kb, built, _ = build_index(kb_dir, out, "t")
    assert built and kb.passages == 3 and versions(out) == {str(kb.live_version)}
    catalogue = Catalogue(out)
    assert {passage.content for passage in catalogue.passages(kb.id)} == {
        "鱼油早上服用。",
        "钙片建议睡前服用。",
        "维生素D晒太阳也能补。",
    }
    catalogue.close()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    arguments = ["--kb_dir", str(write_corpus(tmp_path / "kb", FISH_OIL)), "--out", str(out), "--tenant", "t"]
    for state in ("built", "up to date"):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"{out}: t/default, 3 passages, {state}\n"
    # Without a folder what is stored is built anew, whatever state it is in.
    assert main(["--out", str(out), "--tenant", "t"]) == 0
    assert capsys.readouterr().out == f"{out}: t/default, 3 passages, built\n"


def test_many_tenants_share_a_data_folder(tmp_path: Path) -> None:
    out = tmp_path / "data"
    build_index(write_corpus(tmp_path / "one", FISH_OIL), out, "one")
    kb, built, _ = build_index(write_corpus(tmp_path / "two", {"d1": "别家的钙片。"}), out, "two")
    assert built and kb.passages == 1
    assert live_version(out, "one") != live_version(out, "two") and len(versions(out)) == 2
    assert build_index(tmp_path / "one", out, "one")[1] is False


@pytest.mark.parametrize(
    ("corpus", "problem"),
    [(None, "kb: holds neither corpus.jsonl nor any"), ("{oops", "kb/corpus.jsonl"), ("", "kb/corpus.jsonl")],
)
def test_a_bad_knowledge_base_is_one_line_and_code_2_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: str | None, problem: str
) -> None:
    (tmp_path / "kb").mkdir()
    if corpus is not None:
        (tmp_path / "kb" / "corpus.jsonl").write_text(corpus, encoding="utf-8")
    assert main(["--kb_dir", str(tmp_path / "kb"), "--out", str(tmp_path / "data"), "--tenant", "t"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}") and problem in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_failed_build_leaves_the_earlier_index(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data"
    kb, _, _ = build_index(kb_dir, out, "t")
    (kb_dir / "corpus.jsonl").write_text('{"_id": "d1", "text": "x"}\n{oops', encoding="utf-8")
    with pytest.raises(IngestError):
        build_index(kb_dir, out, "t")
    assert live_version(out) == kb.live_version
    write_corpus(kb_dir, FISH_OIL)
    assert build_index(kb_dir, out, "t")[1] is False


def test_out_that_is_no_data_folder_is_left_alone(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for folder in (kb_dir, None):
        with pytest.raises(IngestError, match=r"precious: exists and is no data folder"):
            build_index(folder, out, "t")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_there_must_be_something_to_build_anew(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"data: no data folder"):
        build_index(None, tmp_path / "data", "t")
    assert not (tmp_path / "data").exists()
    build_index(write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data", "t", retriever="keyword")
    with pytest.raises(IngestError, match=r"data: no knowledge base t/other"):
        build_index(None, tmp_path / "data", "t", "other")


def test_an_unknown_retriever_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    kb_dir = write_corpus(tmp_path / "kb", FISH_OIL)
    with pytest.raises(IngestError, match="retriever bge: neither"):
        build_index(kb_dir, tmp_path / "data", "t", retriever="bge")
    assert not (tmp_path / "data").exists()


def test_what_is_being_served_is_left_to_its_server_to_drop(tmp_path: Path) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data"
    kb, _, _ = build_index(kb_dir, out, "t")
    catalogue = Catalogue(out)
    serving = Indexer(catalogue, engine_of(out, None), embedder_maker(DEFAULT_RETRIEVER))
    opened = serving.open(kb)
    assert opened is not None
    write_corpus(kb_dir, {**FISH_OIL, "d4": "维生素D晒太阳也能补。"})
    rebuilt, built, _ = build_index(kb_dir, out, "t")
    assert built and versions(out) == {str(kb.live_version), str(rebuilt.live_version)}
    assert serving.engine.count(opened.space) == 3  # still there for searches under way
    serving.catch_up(rebuilt)
    taken_over = serving.open(rebuilt)
    assert taken_over is not None and taken_over.version.id == rebuilt.live_version
    assert serving.engine.count(taken_over.space) == 4
    serving.close()
    catalogue.close()


@pytest.mark.parametrize(("retriever", "dimension"), [("keyword", 0), ("hashing", 1024)])
def test_with_a_server_the_vectors_go_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retriever: str, dimension: int
) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data"
    assert build_index(kb_dir, out, "t", retriever=retriever)[1] is True
    with qdrant_server() as url:
        monkeypatch.setenv("QDRANT_URL", url)
        # Another engine's index is not current, nor is one whose server lost it.
        kb, built, _ = build_index(kb_dir, out, "t", retriever=retriever)
        assert built and build_index(kb_dir, out, "t", retriever=retriever)[1] is False
        assert kb.live_version is not None
        engine = engine_of(out, url)
        assert engine.count(Space(kb.live_version, dimension)) == 3
        engine.drop(Space(kb.live_version, dimension))
        engine.close()
        assert build_index(kb_dir, out, "t", retriever=retriever)[1] is True


def test_a_file_that_cannot_be_read_is_named_and_leaves_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb_dir, out = tmp_path / "kb", tmp_path / "data"
    kb_dir.mkdir()
    (kb_dir / "good.txt").write_text("鱼油每日两粒。", encoding="utf-8")
    (kb_dir / "price.txt").write_text("鱼油一瓶一百元。", encoding="utf-8")
    build_index(kb_dir, out, "t")
    (kb_dir / "price.txt").write_bytes(b"%PDF-1.7 \x00\x01")
    (kb_dir / "new.txt").write_text("钙片睡前服用。", encoding="utf-8")
    assert main(["--kb_dir", str(kb_dir), "--out", str(out), "--tenant", "t"]) == 0
    printed = capsys.readouterr()
    assert f"passed over: {kb_dir}/price.txt" in printed.err and "3 passages, built" in printed.out
    catalogue = Catalogue(out)
    kb = catalogue.find_knowledge_base("t", "default")
    assert kb is not None
    assert [row.name for row in catalogue.documents(kb.id)] == ["good.txt", "new.txt", "price.txt"]
    assert catalogue.document(kb.id, "price.txt")[0].content == "鱼油一瓶一百元。"
    catalogue.close()
    for path in kb_dir.iterdir():
        path.write_bytes(b"%PDF-1.7 \x00\x01")
    assert main(["--kb_dir", str(kb_dir), "--out", str(out), "--tenant", "t"]) == 2


def test_folder_and_out_are_enough_and_questions_are_written_in_the_same_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb_dir, out = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data"
    assert main(["--kb_dir", str(kb_dir), "--out", str(out)]) == 0
    assert f"{out}: default/default, 3 passages, built" in capsys.readouterr().out
    with loopback_llm(lambda body: "多少钱一瓶\n怎么吃才好") as llm:
        model = ["--llm_url", llm, "--rewrite_model", "m"]
        options = ["--questions", "2", "--keep", "1", *model]
        assert main(["--kb_dir", str(kb_dir), "--out", str(out), *options]) == 0
        printed = capsys.readouterr().out
        assert "6 of 6 questions are indexed, the best 100% (--keep)" in printed
        assert "3 passages and 6 questions, built" in printed
        assert len(llm.requests) == 3  # asked once for each passage
        assert main(["--kb_dir", str(kb_dir), "--out", str(out), *options]) == 0
        assert "up to date" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--kb_dir", str(kb_dir), "--out", str(out), "--questions"])
    assert "--questions needs --llm-url and --rewrite-model, or a language_model in" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--rewrite-model", "small"]])
def test_questions_are_written_by_the_model_of_the_services_settings(tmp_path: Path, options: list[str]) -> None:
    kb_dir, out, file = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data", tmp_path / "rag.yaml"
    with loopback_llm(lambda body: "多少钱一瓶\n怎么吃才好") as llm:
        file.write_text(f"language_model: {{url: '{llm}', model: big, disable_thinking: true}}\n", encoding="utf-8")
        asked = ["--settings", str(file), *options]
        assert main(["--kb-dir", str(kb_dir), "--out", str(out), "--questions", "2", *asked]) == 0
        [(model, thinks)] = {(r["model"], r["chat_template_kwargs"]["enable_thinking"]) for r in llm.requests}
        assert (model, thinks) == ("small" if options else "big", False)
        llm.requests.clear()
        again = ["--index", str(out), "--tenant", "default", *asked]
        assert write_questions.main(again) == 0 and not llm.requests


def test_the_embedder_of_the_services_settings_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kb_dir, file = write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "rag.yaml"
    file.write_text("retriever: no/such/model\n", encoding="utf-8")
    assert main(["--kb-dir", str(kb_dir), "--out", str(tmp_path / "data"), "--settings", str(file)]) == 2
    assert "no/such/model" in capsys.readouterr().err
    options = ["--settings", str(file), "--retriever", "hashing"]
    assert main(["--kb-dir", str(kb_dir), "--out", str(tmp_path / "data"), *options]) == 0


@pytest.mark.parametrize("server", [False, True])
def test_without_an_embedder_words_alone_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: bool
) -> None:
    with qdrant_server() if server else nullcontext("") as url:
        monkeypatch.setenv("QDRANT_URL", url)
        build_index(write_corpus(tmp_path / "kb", FISH_OIL), tmp_path / "data", "t", retriever="keyword")
        with serving(tmp_path / "data", ServiceSettings(retriever="keyword")) as address:
            put = httpx.put(
                f"{address}/api/tenants/t/knowledge_bases/default/documents/late.txt",
                content="玛咖片每日一片。".encode(),
                trust_env=False,
            )
            assert put.status_code in (200, 201), put.text
            data = search(address, query="玛咖片", tenant_id="t").json()["data"]
    assert data["recall"][0]["content"] == "玛咖片每日一片。"
    assert len(data["recall"]) < 4  # nothing that shares no word or character
    assert (data["channels"]["dense"], data["channels"]["keyword"]) == ("unavailable: no embedder is configured", "on")
