"""What a week of clicks teaches: confident pairs, renewed questions, reranker lists, and figures before and after."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.clicks.evidence import ClickEvidence, Confidence
from data_prep.clicks.intake import SPOOL
from data_prep.dataset.selection import Step
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.documents.records import Document, Passage
from rag.learn_from_clicks import MANIFEST, PAIRS, main
from rag.learning.click_evidence import NEGATIVE_RATE, POSITIVE_RATE, Pair, weigh_clicks, wilson_bound
from rag.learning.question_renewal import is_near
from tests.support.loopback_llm import Fault, loopback_llm

PASSAGES = {
    "oil": "鱼油每日两粒，随餐食用，温水送服。",
    "calcium": "钙片睡前服用，每次一片，嚼碎后咽下。",
    "returns": "未拆封的产品七天内可以退货，运费由买家承担。",
    "storage": "请置于阴凉干燥处，避免阳光直射，开封后尽快吃完。",
}
ASKED = "鱼油怎么吃"
OTHERS = ["鱼油要怎么吃", "鱼油怎么吃呢", "鱼油是怎么吃的"]
# What a language model once wrote: 怎么吃 led people to the calcium's passage, whatever they took.
WRITTEN = {"calcium": ["鱼油怎么吃呢？", "钙片什么时候吃"], "returns": ["可以退货吗"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose pseudo-question leads from fish oil to calcium."""
    folder = tmp_path / "data"
    catalogue = Catalogue(folder)
    kb = catalogue.create_knowledge_base("fivedoctors", "default").id
    catalogue.put_documents(kb, [Document(key, (Passage(key, text),)) for key, text in PASSAGES.items()])
    for key, questions in WRITTEN.items():
        passage = catalogue.passage(kb, key)
        assert passage is not None
        catalogue.put_questions(kb, passage.id, [(question, 0.01) for question in questions])
    catalogue.close()
    return folder


def show(data: Path, query: str, times: int, clicked: str = "", shown: tuple[str, ...] = ("calcium", "oil")) -> None:
    """`times` people saw `shown` for `query` and clicked `clicked`."""
    catalogue = Catalogue(data)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    assert kb is not None
    for person in range(times):
        for place, key in enumerate(shown, start=1):
            Clicks(catalogue).record(Click(kb.id, query, query, key, key == clicked, place, f"{query} {person}"))
    catalogue.close()


def questions(data: Path, key: str) -> list[str]:
    catalogue = Catalogue(data)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    assert kb is not None
    passage = catalogue.passage(kb.id, key)
    assert passage is not None
    found = [question.text for question in catalogue.questions(kb.id, passage.id) if question.kept]
    catalogue.close()
    return found


def revision(data: Path) -> int:
    catalogue = Catalogue(data)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    catalogue.close()
    assert kb is not None
    return kb.revision


def held_out(folder: Path, answers: dict[str, str]) -> Path:
    folder.mkdir()
    queries = [json.dumps({"_id": f"q{n}", "text": text}) for n, text in enumerate(answers)]
    (folder / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    qrels = [f"q{n}\t{key}\t1" for n, key in enumerate(answers.values())]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(qrels), encoding="utf-8")
    return folder


def learn(data: Path, out: Path, *options: str) -> int:
    return main(["--index", str(data), "--tenant", "fivedoctors", "--out", str(out), *options])


def manifest(out: Path) -> dict:
    return json.loads((out / MANIFEST).read_text(encoding="utf-8"))


def test_a_question_that_led_to_the_wrong_passage_goes_and_others_find_the_right_one(data, tmp_path):
    show(data, ASKED, 12, clicked="oil")
    out, judged = tmp_path / "out", held_out(tmp_path / "judged", dict.fromkeys(OTHERS, "oil"))
    with loopback_llm(lambda body: "鱼油怎么吃？\n钙片几点吃最好\n钙片要嚼碎吗") as url:
        assert learn(data, out, "--llm_url", url, "--rewrite_model", "m", "--heldout", str(judged)) == 0
        assert len(url.requests) == 1  # only the passage that was not wanted
    # Of the new ones, too, the one that leads astray is dropped; those of other passages stay.
    assert questions(data, "calcium") == ["钙片几点吃最好", "钙片要嚼碎吗"]
    assert questions(data, "returns") == WRITTEN["returns"]
    first = manifest(out)["figures"]["R@1"]
    assert first["before"] == 0 and first["after"] == 1 and first["low"] > 0
    assert manifest(out)["pairs"] == {"positive": 1, "negative": 1, "ambiguous": 0}
    assert [json.loads(line) for line in (out / PAIRS).read_text(encoding="utf-8").splitlines()] == [
        {
            "query_text": ASKED,
            "positives": [{"doc_id": "oil", "text": PASSAGES["oil"]}],
            "negatives": [{"doc_id": "calcium", "text": PASSAGES["calcium"]}],
            "source_chunk": "",
            "meta": {"domain": "fivedoctors", "prompt_style": "click_log"},
        }
    ]


def test_the_services_settings_name_the_model_and_an_option_counts_before_them(data, tmp_path, capsys):
    show(data, ASKED, 12, clicked="oil")
    file = tmp_path / "rag.yaml"
    with loopback_llm(lambda body: "钙片几点吃最好\n钙片要嚼碎吗") as url:
        file.write_text(f'retriever: hashing\nlanguage_model: {{url: "{url}", model: m}}\n', encoding="utf-8")
        assert learn(data, tmp_path / "out", "--settings", str(file), "--rewrite-model", "other") == 0
        assert url.requests and all("other" in str(request) for request in url.requests)
    assert questions(data, "calcium") == ["钙片几点吃最好", "钙片要嚼碎吗"]
    assert learn(data, tmp_path / "out", "--llm-url", "http://127.0.0.1:9/v1") == 2
    assert "no --rewrite-model" in capsys.readouterr().err


def test_learning_twice_changes_nothing(data, tmp_path):
    show(data, ASKED, 12, clicked="oil")
    out = tmp_path / "out"
    with loopback_llm(lambda body: f"钙片第{len(url.requests)}问\n钙片要嚼碎吗") as url:
        options = ["--llm_url", url, "--rewrite_model", "m"]
        assert learn(data, out, *options) == 0
        before = revision(data), questions(data, "calcium"), (out / PAIRS).read_bytes(), manifest(out)["renewed_for"]
        assert learn(data, out, *options) == 0
        assert before == (
            revision(data),
            questions(data, "calcium"),
            (out / PAIRS).read_bytes(),
            manifest(out)["renewed_for"],
        )
        assert len(url.requests) == 1
        show(data, "钙片饭前吃还是饭后吃", 12, clicked="oil")  # news of the same passage
        assert learn(data, out, *options) == 0
        assert len(url.requests) == 2 and revision(data) > before[0]


def test_where_nothing_is_sure_nothing_changes(data, tmp_path):
    show(data, ASKED, 2, clicked="oil")
    show(data, "退货", 30, shown=("returns",))
    show(data, "退货", 8, clicked="returns", shown=("returns",))
    before = revision(data)
    out, judged = tmp_path / "out", held_out(tmp_path / "judged", {"退货": "returns", "怎么吃": "oil"})
    with loopback_llm() as url:
        assert learn(data, out, "--llm_url", url, "--rewrite_model", "m", "--heldout", str(judged)) == 0
        assert not url.requests
    assert revision(data) == before and (out / PAIRS).read_text() == ""
    assert {figure["change"] for figure in manifest(out)["figures"].values()} == {0}


def test_without_a_language_model_misleading_questions_are_dropped_and_the_rest_stays(data, tmp_path):
    show(data, ASKED, 12, clicked="oil")
    assert learn(data, tmp_path / "out") == 0
    assert questions(data, "calcium") == ["钙片什么时候吃"]


def test_a_model_that_fails_costs_no_question_and_is_asked_again(data, tmp_path, capsys):
    show(data, ASKED, 12, clicked="oil")
    out = tmp_path / "out"
    with loopback_llm(lambda body: Fault(status=400)) as url:
        assert learn(data, out, "--llm_url", url, "--rewrite_model", "m") == 0
    assert questions(data, "calcium") == ["钙片什么时候吃"]
    assert manifest(out)["renewed_for"] == {} and "calcium: m: HTTP 400" in capsys.readouterr().err


def test_questions_kept_out_of_the_index_stay_out(data, tmp_path):
    catalogue = Catalogue(data)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    passage = catalogue.passage(kb.id, "calcium")
    catalogue.put_questions(kb.id, passage.id, [("鱼油怎么吃", 0.9), ("钙片什么时候吃", 0.8), ("今天天气好吗", 0.1)])
    catalogue.keep_questions(kb.id, 0.5)
    catalogue.close()
    show(data, ASKED, 12, clicked="oil")
    assert learn(data, tmp_path / "out") == 0
    assert questions(data, "calcium") == ["钙片什么时候吃"]


def test_new_questions_no_better_than_those_kept_out_stay_out(data, tmp_path):
    catalogue = Catalogue(data)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    passage = catalogue.passage(kb.id, "returns")
    catalogue.put_questions(kb.id, passage.id, [("可以退货吗", 0.5)])
    catalogue.keep_questions(kb.id, 0.5)
    passage = catalogue.passage(kb.id, "calcium")
    catalogue.put_questions(kb.id, passage.id, [("钙片怎么吃", 0.6)])
    catalogue.close()
    show(data, ASKED, 12, clicked="oil")
    with loopback_llm(lambda body: "钙片睡前服用吗\n今天下雨了没有") as url:
        assert learn(data, tmp_path / "out", "--llm_url", url, "--rewrite_model", "m") == 0
    assert questions(data, "calcium") == ["钙片睡前服用吗"]


def test_nothing_is_learned_from_the_queries_it_is_measured_on(data, tmp_path):
    show(data, ASKED, 12, clicked="oil")
    judged = held_out(tmp_path / "judged", {ASKED: "oil"})
    assert learn(data, tmp_path / "out", "--heldout", str(judged)) == 0
    assert questions(data, "calcium") == WRITTEN["calcium"] and (tmp_path / "out" / PAIRS).read_text() == ""


def test_every_fifth_sure_query_is_held_out_where_no_set_is_given(data, tmp_path):
    for n in range(40):
        show(data, f"第{n}种鱼油怎么吃", 6, clicked="oil")
    out = tmp_path / "out"
    assert learn(data, out) == 0
    learned = {json.loads(line)["query_text"] for line in (out / PAIRS).read_text(encoding="utf-8").splitlines()}
    apart = manifest(out)["heldout"]["queries"]
    assert 1 <= apart <= 20 and len(learned) == 40 - apart


def test_clicks_before_since_do_not_count(data, tmp_path):
    show(data, ASKED, 12, clicked="oil")
    out = tmp_path / "out"
    assert learn(data, out, "--since", "2999-01-01") == 0
    assert manifest(out)["clicks"] == {"rows": 0} and questions(data, "calcium") == WRITTEN["calcium"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tenant", "nobody"], "tenant nobody has no knowledge base default"),
        (["--index", "missing"], "holds no catalogue.sqlite"),
        (["--heldout", "missing"], "queries.jsonl"),
    ],
)
def test_what_cannot_be_used_is_one_line(data, tmp_path, capsys, options, problem):
    judged = tmp_path / "judged"
    judged.mkdir()
    (judged / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\toil\t1\n")
    options = [str(judged) if value == "missing" and "--heldout" in options else value for value in options]
    assert learn(data, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1


@pytest.mark.parametrize(("clicked", "shown"), [(0, 11), (3, 5), (7, 7), (40, 100)])
def test_bounds_solve_wilsons_equation(clicked, shown):
    for sign in (-1, 1):
        bound = wilson_bound(clicked, shown, sign)
        spread = 1.6449 * math.sqrt(bound * (1 - bound) / shown)
        assert clicked / shown - bound == pytest.approx(-sign * spread, abs=1e-6)
    assert wilson_bound(0, 10, 1) > NEGATIVE_RATE > wilson_bound(0, 11, 1)
    assert wilson_bound(1, 2, -1) < POSITIVE_RATE < wilson_bound(4, 4, -1)


def random_clicks(seed: int) -> list[Click]:
    """Of a few queries and passages, with and without positions, request ids and times of day."""
    dice = random.Random(seed)
    times = ["2026-03-01", "2026-03-02T00:00:00", *(f"2026-03-01T10:00:{n:02}" for n in range(20))]
    return [
        Click(
            kb_id=1,
            query=dice.choice(["q1", "q2"]),
            rewritten_query="",
            passage_key=(key := dice.choice(["d1", "d2", "d3"])),
            clicked=dice.random() < {"d1": 0.0, "d2": 0.2, "d3": 0.9}[key],
            position=dice.choice([None, 1, 2, 3]),
            request_id=dice.choice(["", *(f"r{n}" for n in range(60))]),
            at=dice.choice(times),
        )
        for _ in range(800)
    ]


def test_both_readers_of_click_logs_count_alike(tmp_path):
    labels = set()
    for seed in range(12):
        clicks = random_clicks(seed)
        rows = [
            {"original_query": one.query, "doc_id": one.passage_key, "passage": f"of {one.passage_key}", "id": number}
            | {"clicked": one.clicked, "position": one.position, "request_id": one.request_id, "timestamp": one.at}
            for number, one in enumerate(clicks)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=SPOOL), tmp_path / "spool.parquet")
        evidence = ClickEvidence(tmp_path / "spool.parquet", [Step("all", "true", "''")], {}, Confidence(), tmp_path)
        theirs = {
            Pair(row["query"], row["doc_id"], row["shown"], row["seen"], row["clicked"], row["verdict"])
            for row in evidence.pairs()
        }
        evidence.close()
        assert {pair for pair in weigh_clicks(clicks) if pair.label != "ambiguous"} == theirs
        labels |= {pair.label for pair in theirs}
    assert labels == {"positive", "negative"}


def test_near_is_the_same_question_in_other_words_not_the_same_words_of_another_thing():
    assert is_near("鱼油怎么吃？", "鱼油怎么吃") and is_near("鱼油要怎么吃", "鱼油怎么吃")
    assert not is_near("钙片怎么吃", "鱼油怎么吃") and not is_near("鱼油可以退货吗", "鱼油怎么吃")
