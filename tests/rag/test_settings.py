"""What the command line says is written over the settings file, part by part."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag import serve, write_questions
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import IngestError
from rag.index.server_engine import ServerEngine
from rag.models.endpoint_embedder import split_address
from rag.settings import read_settings

FILE = "language_model: {url: 'http://llm:8000/v1', model: big, timeout: 9}\n"


@pytest.mark.parametrize(
    ("in_file", "options", "expected"),
    [
        (FILE, {}, ("http://llm:8000/v1", "big", 9)),
        (FILE, {"model": "small"}, ("http://llm:8000/v1", "small", 9)),
        (FILE, {"url": "http://other/v1"}, ("http://other/v1", "big", 9)),
        ("language_model: {url: 'http://llm:8000/v1'}\n", {"model": "small"}, ("http://llm:8000/v1", "small", 30)),
        ("", {"url": "http://llm/v1", "model": "small"}, ("http://llm/v1", "small", 30)),
    ],
)
def test_a_model_is_named_at_the_endpoint_of_the_settings(
    tmp_path: Path, in_file: str, options: dict[str, str], expected: tuple[str, str, float]
) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(in_file, encoding="utf-8")
    model = read_settings(file, {"language_model": options}).language_model
    assert model is not None and (model.url, model.model, model.timeout) == expected


def test_half_of_an_endpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"no --llm-url, and no language_model\.url in --settings"):
        read_settings(None, {"language_model": {"model": "small"}})
    with pytest.raises(IngestError, match=r"no --rewrite-model, and no language_model\.model in --settings"):
        read_settings(None, {"language_model": {"url": "http://llm/v1"}})
    assert read_settings(None, {"language_model": {}}).language_model is None


def test_the_command_line_reaches_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("language_model: {timeout: 9}\n", encoding="utf-8")
    options = ["--index", str(tmp_path), "--port", "0", "--settings", str(file), "--rewrite_model", "small"]
    assert serve.main(options) == 2
    assert f"error: no --llm-url, and no language_model.url in {file}" in capsys.readouterr().err


def test_prompts_of_the_settings_reach_the_retriever(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        'retriever: "http://e:1/v1#e5"\nquery_prompt: "query: "\npassage_prompt: "passage: "\n', encoding="utf-8"
    )
    assert read_settings(file).embedder == "http://e:1/v1#e5?query_prompt=query%3A+&passage_prompt=passage%3A+"
    assert read_settings(file, {"retriever": "http://e:1/v1#m", "query_prompt": "", "passage_prompt": ""}).embedder == (
        "http://e:1/v1#m"
    )


SECRETS = ["http://me:s3cret@host/v1", "http://s3cret@host/v1", "http:\\\\me:s3cret@host", "http://host/v1?key=s3cret"]


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_in_an_address_is_refused_and_not_shown(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.yaml"
    for setting in (
        f"retriever: '{url}#m'",
        f"reranker: '{url}#m'",
        f"reranker: 'logits:{url}#m'",
        f"language_model: {{url: '{url}', model: m}}",
        f"tenants: {{t: {{rewriter_url: '{url}'}}}}",
    ):
        file.write_text(setting, encoding="utf-8")
        with pytest.raises(IngestError, match="a URL must not hold") as refusal:
            read_settings(file)
        assert "s3cret" not in str(refusal.value)
    for refused in (lambda: split_address(f"{url}#m"), lambda: ServerEngine(url)):
        with pytest.raises(IngestError, match="a URL must not hold") as refusal:
            refused()
        assert "s3cret" not in str(refusal.value)
    Catalogue(tmp_path / "data").create_knowledge_base("t", "kb")
    options = ["--index", str(tmp_path / "data"), "--tenant", "t", "--kb-name", "kb", "--llm-url", url]
    assert write_questions.main([*options, "--rewrite-model", "m"]) == 2
    said = capsys.readouterr()
    assert "a URL must not hold" in said.err and "s3cret" not in said.out + said.err
