"""The sample data of the quick start: reproducible, balanced as its README says, and answerable by a rewriter."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.fivedoctors.generate_sample_data import load_intents, load_yaml, main, write_sample_data
from reward.records.files import read_jsonl
from reward.settings.recipe import load_tenant
from reward.text.fold import fold

FILES = (
    *("corpus.jsonl", "qrels.tsv", "queries_train.jsonl", "queries_heldout.jsonl", "baseline_rewrites.jsonl"),
    "queries.jsonl",
)
KINDS = {"regular", "systematic", "unseen_wording"}
PRODUCTS: list[dict[str, str]] = load_yaml("products.yaml")
INTENTS = load_intents()
NICKNAMES = {product["id"]: product["nickname"] for product in PRODUCTS}
KEYWORDS = {intent.id: intent.keyword for intent in INTENTS}
PRONOUNS: list[str] = load_yaml("contexts.yaml")["pronouns"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample_data")
    write_sample_data(out, seed=0)
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def queries(data: Path, *parts: str) -> list[dict[str, Any]]:
    return [query for part in parts or ("train", "heldout") for query in rows(data / f"queries_{part}.jsonl")]


def relevant_passages(data: Path) -> dict[str, str]:
    with (data / "qrels.tsv").open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t"))
    assert list(table[0]) == ["query-id", "corpus-id", "score"]
    assert {row["score"] for row in table} == {"1"}
    relevant = {row["query-id"]: row["corpus-id"] for row in table}
    assert len(relevant) == len(table)
    return relevant


def wording_of(query: dict[str, Any], passage: str) -> str:
    """The wording behind a query: its text with the nickname, or the pronoun that stands for it, taken out."""
    product, intent_id = passage.split(".")
    intent = next(intent for intent in INTENTS if intent.id == intent_id)
    wordings = (*intent.seen, *intent.unseen, *(entry.wording for entry in intent.systematic))
    mentions = PRONOUNS if query["history_context"] else [NICKNAMES[product]]
    matches = [w for w in wordings if query["query"] in {w.format(p=mention) for mention in mentions}]
    assert len(matches) == 1, query
    return matches[0]


def kinds(part: list[dict[str, Any]]) -> Counter[str]:
    return Counter(query["slices"][0] for query in part)


def test_same_seed_same_bytes_and_other_seed_other_queries(data: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "again")]) == 0
    assert main(["--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (data / name).read_bytes(), name
    assert (tmp_path / "other" / FILES[2]).read_bytes() != (data / FILES[2]).read_bytes()
    assert (tmp_path / "other" / "corpus.jsonl").read_bytes() == (data / "corpus.jsonl").read_bytes()


def test_unwritable_folder_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    assert main(["--out", str(tmp_path / "taken")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1


def test_counts_and_slices(data: Path) -> None:
    train, heldout = queries(data, "train"), queries(data, "heldout")
    alone = {row["query_id"]: row["query"] for row in (*train, *heldout) if "needs_history" not in row["slices"]}
    assert {row["_id"]: row["text"] for row in rows(data / "queries.jsonl")} == alone
    assert (len(PRODUCTS), len(INTENTS), len(rows(data / "corpus.jsonl"))) == (20, 12, 240)
    assert all(len(i.seen) + len(i.unseen) + len(i.systematic) == 15 for i in INTENTS)
    assert kinds(train) == {"regular": 750, "systematic": 150}
    assert kinds(heldout) == {"regular": 380, "systematic": 100, "unseen_wording": 120}
    assert all(set(query["slices"][1:]) <= {"needs_history"} for query in train + heldout)
    wordings = sum(len(i.systematic) for i in INTENTS) / (15 * len(INTENTS))
    assert 0.14 <= wordings <= 0.18


def test_every_passage_is_a_proper_one(data: Path) -> None:
    corpus = rows(data / "corpus.jsonl")
    assert len({passage["_id"] for passage in corpus}) == len({passage["text"] for passage in corpus}) == 240
    for passage in corpus:
        product, intent = passage["_id"].split(".")
        text = passage["text"]
        assert 70 <= len(text) <= 160, passage
        assert NICKNAMES[product] in text and KEYWORDS[intent] in text and not re.search(r"[{}]", text), passage
        others = [n for p, n in NICKNAMES.items() if p != product] + [k for i, k in KEYWORDS.items() if i != intent]
        assert not [other for other in others if other in text], passage


def test_every_query_has_one_passage_of_the_corpus(data: Path) -> None:
    relevant, ids = relevant_passages(data), [query["query_id"] for query in queries(data)]
    assert len(set(ids)) == len(ids) == len(relevant)
    assert set(ids) == set(relevant)
    assert set(relevant.values()) <= {passage["_id"] for passage in rows(data / "corpus.jsonl")}


def test_no_wording_of_a_product_is_in_both_files(data: Path) -> None:
    relevant = relevant_passages(data)
    pairs = {
        part: [(wording_of(q, relevant[q["query_id"]]), relevant[q["query_id"]]) for q in queries(data, part)]
        for part in ("train", "heldout")
    }
    assert all(len(set(part)) == len(part) for part in pairs.values())
    assert not set(pairs["train"]) & set(pairs["heldout"])
    seen = {wording for wording, _ in pairs["train"]}
    for query, (wording, _) in zip(queries(data, "heldout"), pairs["heldout"], strict=True):
        assert (wording not in seen) == (query["slices"][0] == "unseen_wording"), query


def test_context_names_the_product_exactly_where_the_query_does_not(data: Path) -> None:
    relevant, all_queries = relevant_passages(data), queries(data)
    for query in all_queries:
        nickname = NICKNAMES[relevant[query["query_id"]].split(".")[0]]
        history = query["history_context"] + query["history_summary"]
        named = [n for n in NICKNAMES.values() if n in query["query"] + history + query["user_profile"]]
        assert named == [nickname], query
        assert (nickname in query["query"]) != bool(history), query
        assert ("needs_history" in query["slices"]) == bool(history), query
        assert all(re.match("(用户|助手): .", line) for line in query["history_context"].splitlines()), query
    share = len(all_queries)
    assert sum(bool(query["user_profile"]) for query in all_queries) / share == pytest.approx(0.35, abs=0.01)
    assert sum(bool(query["history_context"]) for query in all_queries) / share == pytest.approx(0.30, abs=0.01)


def test_no_query_holds_a_fact_that_a_right_rewrite_would_drop(data: Path) -> None:
    """Numerals, negations and protected groups would close a gate on `nickname keyword`."""
    lexicon = load_tenant("fivedoctors").lexicon
    for query in queries(data):
        assert not re.search(r"[0-9零一二两三四五六七八九十百千半不没别无未非勿]", query["query"]), query
        named = [t.group for t in lexicon.find(fold(query["query"])) if not (t.is_product or t.is_hint)]
        assert not named, query


def test_baseline_is_recorded_for_every_query_and_errs_as_described(data: Path) -> None:
    relevant, recorded = relevant_passages(data), rows(data / "baseline_rewrites.jsonl")
    by_id = {query["query_id"]: query for query in queries(data)}
    assert [row["query_id"] for row in recorded] == list(by_id)
    assert len({(row["query"], row["history_context"]) for row in recorded}) == len(recorded)
    systematic: dict[str, set[str]] = {}
    wrong: Counter[str] = Counter()
    for row in recorded:
        query, passage = by_id[row["query_id"]], relevant[row["query_id"]]
        product, intent = passage.split(".")
        rewrite = row["rewritten_query"]
        assert (row["query"], row["history_context"]) == (query["query"], query["history_context"])
        assert len(rewrite) <= min(20, 5 * len(row["query"])), row
        right = NICKNAMES[product] in rewrite and KEYWORDS[intent] in rewrite
        wrong[query["slices"][0]] += not right
        if query["slices"][0] == "systematic":
            pattern = rewrite.replace(NICKNAMES[product], "{p}")
            systematic.setdefault(wording_of(query, passage), set()).add(pattern)
    kind = kinds(list(by_id.values()))
    assert wrong["systematic"] == kind["systematic"]
    assert all(len(patterns) == 1 for patterns in systematic.values())
    for name in KINDS - {"systematic"}:
        assert 0.09 <= wrong[name] / kind[name] <= 0.12, name


def test_characters_fit_a_small_character_model(data: Path) -> None:
    texts = [row["rewritten_query"] for row in rows(data / "baseline_rewrites.jsonl")]
    for query in queries(data):
        texts += [query[name] for name in ("query", "user_profile", "history_summary", "history_context")]
    assert len(set("".join(texts))) <= 900
