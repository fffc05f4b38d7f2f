"""The fusion of channels: its formula, the fit from judged queries and clicks, and that a service takes it up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from rag.build_index import build_index
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.catalogue.records import RowKey, StoredPassage
from rag.fit_fusion import main
from rag.index.engine import ScoredRow
from rag.learning.fusion_fit import is_held_out
from rag.retrieval.fitted_fusion import fusion_in_force, read_fitted
from rag.retrieval.fusion import ChannelRows, FusionWeights, by_passage, final_order, fuse, fuse_channels
from rag.settings import ServiceSettings
from tests.support.loopback_llm import loopback_llm
from tests.support.rag_server import search, serving

NO_TOKENS = np.array([], np.uint32)


def behind(*passages: int, questions: dict[int, int] | None = None) -> dict[RowKey, StoredPassage]:
    """The rows of passages, and of questions (row → passage)."""
    stored = {i: StoredPassage(i, f"p{i}", "d", f"text {i}", NO_TOKENS) for i in passages}
    rows = {RowKey(i, False): passage for i, passage in stored.items()}
    return rows | {RowKey(row, True): stored[passage] for row, passage in (questions or {}).items()}


def rows(*scores: float, is_cut: bool = False, least: float = 0.0) -> ChannelRows:
    return ChannelRows([ScoredRow(i, False, score) for i, score in enumerate(scores, start=1)], least, is_cut)


# The formula


def test_a_share_is_the_score_above_chance_as_part_of_the_best() -> None:
    found = by_passage(rows(0.9, 0.85, 0.8, least=0.7), behind(1, 2, 3), depth=10)
    assert found.shares == pytest.approx({1: 1.0, 2: 0.75, 3: 0.5})
    assert [found.ranks[i].rank for i in (1, 2, 3)] == [1, 2, 3]
    # More candidates change no share: nothing depends on the least one found.
    assert by_passage(rows(0.9, 0.85, 0.8, 0.71, least=0.7), behind(1, 2, 3, 4), 10).shares[3] == pytest.approx(0.5)


def test_what_a_channel_did_not_find_has_its_last_share_where_more_was_to_find_else_nothing() -> None:
    passages = behind(1, 2)
    assert by_passage(rows(4.0, 1.0, is_cut=True), passages, 10).missing == 0.25
    assert by_passage(rows(4.0, 1.0, is_cut=False), passages, 10).missing == 0.0
    assert by_passage(rows(4.0, 1.0), passages, depth=1).missing == 1.0  # cut here


def test_the_combination_is_convex_and_keeps_the_first_of_equals() -> None:
    fused = fuse([({"a": 1.0, "b": 0.5}, 0.0, 0.6), ({"b": 1.0, "c": 0.5}, 0.25, 0.4)])
    assert fused == pytest.approx({"a": 0.7, "b": 0.7, "c": 0.2}) and list(fused) == ["a", "b", "c"]
    assert fuse([({"a": 1.0}, 0.0, 0.3)]) == {"a": 1.0}  # a channel alone decides, whatever its weight
    assert fuse([({"a": 1.0}, 0.0, 0.0)]) == {"a": 1.0}
    assert fuse([]) == {}


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_a_channel_of_weight_one_gives_its_own_order(dense: float) -> None:
    passages = behind(*range(1, 40))
    keyword = by_passage(rows(*(50.0 - i for i in range(35)), is_cut=True), passages, 30)
    backwards = [ScoredRow(39 - i, False, 0.9 - i / 100) for i in range(35)]
    by_vector = by_passage(ChannelRows(backwards, 0.1, True), passages, 30)
    fused = fuse_channels({"keyword": keyword, "dense": by_vector}, FusionWeights(dense))
    own = by_vector if dense else keyword
    assert list(fused)[:29] == list(own.ranks)[:29]


@pytest.mark.parametrize("scores", [(0.0, 0.0), (0.3, 0.3), (-0.2, -0.4)])
def test_scores_no_better_than_chance_are_shares_all_the_same(scores: tuple[float, ...]) -> None:
    shares = by_passage(rows(*scores, least=0.3), behind(1, 2), 10).shares
    assert all(0 <= share <= 1 for share in shares.values())


def test_a_questions_match_counts_as_its_weight_says() -> None:
    found = ChannelRows([ScoredRow(7, True, 1.0), ScoredRow(1, False, 0.8), ScoredRow(2, False, 0.4)], 0.0, False)
    passages = behind(1, 2, questions={7: 2})
    assert by_passage(found, passages, 10, 1.0).shares == {2: 1.0, 1: 0.8}
    half = by_passage(found, passages, 10, 0.5)
    assert half.shares == {1: 0.8, 2: 0.5} and half.rows[2] == RowKey(7, True)
    assert by_passage(found, passages, 10, 0.0).rows[2] == RowKey(2, False)


def test_the_cross_encoders_part_of_the_order() -> None:
    fused, judged = {1: 0.9, 2: 0.8}, {1: 0.1, 2: 0.6}
    assert final_order(fused, judged, FusionWeights(0.5, rerank=1.0)) == [2, 1]
    assert final_order(fused, judged, FusionWeights(0.5, rerank=0.0)) == [1, 2]


def test_weights_hold_for_what_they_were_fitted_on_only() -> None:
    values = {
        "weights": {"dense": 0.8, "questions": 0.5, "rerank": 0.25},
        "embedder_id": "e5",
        "tokenizer_id": "t",
        "reranker_id": "r",
        "source": "clicks",
        "queries": 100,
        "held_out": 40,
        "before": 0.1,
        "after": 0.2,
        "change": 0.1,
        "low": 0.05,
        "high": 0.15,
        "fitted_at": "2026-01-01",
    }
    stored = json.dumps(values)
    fitted = read_fitted(stored)
    assert fitted is not None and json.loads(fitted.to_json()) == values
    assert fusion_in_force(stored, "e5", "t", 0.7, "r").weights == FusionWeights(0.8, 0.5, 0.25)
    assert fitted.id in fusion_in_force(stored, "e5", "t", 0.7, "r").name
    assert fusion_in_force(stored, "e5", "t", 0.7, "another").weights == FusionWeights(0.8, 0.5, 1.0)
    assert fusion_in_force(stored, "e5", "t", 0.7, "another", 0).weights == FusionWeights(0.8, 0.5, 0)
    assert fusion_in_force(stored, "e5", "t", 0.7, "r", 0).weights == FusionWeights(0.8, 0.5, 0.25)
    for embedder, tokenizer in (("bge", "t"), ("e5", "u")):
        other = fusion_in_force(stored, embedder, tokenizer, 0.7, "r")
        assert other.weights == FusionWeights(0.7) and "fitted for e5, t: run rag.fit_fusion" in other.name
    assert fusion_in_force("", "e5", "t", 0.7).name == "tm2c2: default (dense 0.7, questions 1, rerank 1)"


# The fit: words find the right passage, the vectors of questions point to the next one


N = 60
PROMPTED = "?prompts=none"


def misled(body: dict) -> dict:
    """Vectors of N directions: a passage's own, a question's the next one's."""

    def vector(text: str) -> list[float]:
        found = re.search(r"X(\d+)Y", text)
        place = int(found[1]) + ("怎么" in text) if found else 0
        return [float(i == place % N) for i in range(N)]

    data = [{"index": i, "embedding": vector(text), "object": "embedding"} for i, text in enumerate(body["input"])]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


@dataclass
class Built:
    """A data folder whose embedder is at `retriever`, and judged queries; `right`: those that words answer."""

    kb: Path
    judged: Path
    retriever: str


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Built]:
    folder, judged = tmp_path / "corpus", tmp_path / "judged"
    folder.mkdir()
    judged.mkdir()
    passages = [{"_id": f"p{i}", "text": f"产品X{i}Y每日一粒，随餐服用。"} for i in range(N)]
    queries = [{"_id": f"q{i}", "text": f"X{i}Y怎么吃"} for i in range(N)]
    for path, lines in ((folder / "corpus.jsonl", passages), (judged / "queries.jsonl", queries)):
        path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    qrels = ["query-id\tcorpus-id\tscore", *(f"q{i}\tp{i}\t1" for i in range(N))]
    (judged / "qrels.tsv").write_text("\n".join(qrels), encoding="utf-8")
    with loopback_llm(embed=misled) as url:
        retriever = f"{url}#m{PROMPTED}"
        build_index(folder, tmp_path / "kb", "shop", retriever=retriever)
        yield Built(tmp_path / "kb", judged, retriever)


def fit(built: Built, *options: str) -> int:
    return main(["--index", str(built.kb), "--tenant", "shop", "--retriever", built.retriever, *options])


def stored(built: Built) -> str:
    catalogue = Catalogue(built.kb)
    kb = catalogue.find_knowledge_base("shop", "default")
    catalogue.close()
    assert kb is not None
    return kb.fusion


def test_what_is_fitted_is_kept_and_a_running_service_takes_it_up(built, capsys) -> None:
    with serving(built.kb, ServiceSettings(retriever=built.retriever)) as url:
        before = search(url, query="X7Y怎么吃", tenant_id="shop").json()["data"]
        assert before["recall"][0]["doc_id"] == "p8" and before["fusion"].startswith("tm2c2: default (dense 0.7")
        assert fit(built, "--judged", str(built.judged)) == 0
        after = search(url, query="X7Y怎么吃", tenant_id="shop").json()["data"]
        facts = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert facts["kept"] and facts["measures"]["nDCG@10"]["low"] > 0 and facts["queries"] == N
        assert after["recall"][0]["doc_id"] == "p7"
        assert after["fusion"].startswith(f"tm2c2: fitted {facts['fusion']} (dense {facts['weights']['dense']:g}")
        health = httpx.get(f"{url}/healthz", trust_env=False).json()["knowledge_bases"][0]
        assert health["fusion"] == after["fusion"]
        # Only those that were held out are measured on.
        held_out = sum(is_held_out(f"X{i}Y怎么吃") for i in range(N))
        assert facts["held_out"] == held_out and 20 <= held_out <= N - 20
        # Nothing is better than what is in force now.
        assert fit(built, "--judged", str(built.judged)) == 1
        assert "refused: no weights are better" in capsys.readouterr().out
        assert main(["--index", str(built.kb), "--tenant", "shop", "--forget"]) == 0
        assert search(url, query="X7Y怎么吃", tenant_id="shop").json()["data"]["fusion"] == before["fusion"]


def test_clicks_serve_as_well(built, capsys) -> None:
    catalogue = Catalogue(built.kb)
    kb = catalogue.find_knowledge_base("shop", "default")
    assert kb is not None
    assert fit(built) == 2
    assert "no click says for sure" in capsys.readouterr().err
    for i in range(N):
        for place in range(3):
            Clicks(catalogue).record(Click(kb.id, f"X{i}Y怎么吃", "", f"p{i}", True, 1, f"{i}-{place}"))
    catalogue.close()
    assert fit(built, "--dry-run") == 0 and stored(built) == ""
    assert fit(built) == 0
    fitted = read_fitted(stored(built))
    assert fitted is not None and fitted.source == "clicks" and fitted.weights.dense < 0.5


def test_what_is_not_better_is_refused(built, capsys) -> None:
    # The vectors are right: what is in force (0.7) already puts every relevant passage first.
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\tp{(i + 1) % N}\t1" for i in range(N))]
    (built.judged / "qrels.tsv").write_text("\n".join(lines), encoding="utf-8")
    assert fit(built, "--judged", str(built.judged)) == 1 and stored(built) == ""
    # Labels that have nothing to do with anything.
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\tp{(i + N // 2) % N}\t1" for i in range(N))]
    (built.judged / "qrels.tsv").write_text("\n".join(lines), encoding="utf-8")
    assert fit(built, "--judged", str(built.judged)) == 1 and stored(built) == ""
    out = capsys.readouterr().out
    assert out.count("refused: ") == 2


def test_too_few_queries_and_a_failing_embedder_are_one_line(built, capsys) -> None:
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\tp{i}\t1" for i in range(30))]
    (built.judged / "qrels.tsv").write_text("\n".join(lines), encoding="utf-8")
    assert fit(built, "--judged", str(built.judged)) == 2
    assert "30 judged queries" in capsys.readouterr().err
    gone = ["--index", str(built.kb), "--tenant", "shop", "--retriever", f"http://127.0.0.1:9/v1#m{PROMPTED}"]
    assert main([*gone, "--judged", str(built.judged)]) == 2
    err = capsys.readouterr().err
    assert "embeddings of m" in err and err.count("\n") == 1 and stored(built) == ""


def test_an_index_of_another_embedder_has_the_default_again(built, tmp_path) -> None:
    assert fit(built, "--judged", str(built.judged)) == 0
    build_index(None, built.kb, "shop", retriever="hashing")
    with serving(built.kb) as url:
        name = search(url, query="X7Y怎么吃", tenant_id="shop").json()["data"]["fusion"]
    assert name.startswith("tm2c2: default (dense 0.1") and "fitted for endpoint:m" in name
