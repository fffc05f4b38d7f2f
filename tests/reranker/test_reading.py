"""Training data of every kind: what is read, what is kept aside, and the line that says so."""

import json

import pytest

from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from plain_text.asked import asked_text
from rag.service.contracts import ConversationRequest
from reranker.data.cleaning import clean
from reranker.data.reading import LONGEST_TEXT, PAIRS, read_data
from reward.records.files import BadInput
from tests.support.reranker_sets import lists, write_lists


def one(
    query="鱼油怎么吃", positives=({"doc_id": "a", "text": "每日一粒"},), negatives=({"doc_id": "b", "text": "退烧"},)
):
    return {"query_text": query, "positives": list(positives), "negatives": list(negatives)}


def left_out(reading):
    return [(line.where.rpartition(": ")[2], line.field, line.reason) for line in reading.left_out]


BAD_ROWS = [
    ("{not json", "line", "not JSON"),
    ("[1]", "line", "expected an object, found list"),
    (one(query=" "), "query_text", "missing or empty"),
    (one(query=7), "query_text", "missing or empty"),
    (one(positives=[]), "positives", "no passage answers"),
    ({"query_text": "q", "negatives": []}, "positives", "missing or no list"),
    (one() | {"positives": "每日"}, "positives", "missing or no list"),
    (one() | {"negatives": {"text": "x"}}, "negatives", "missing or no list"),
    ("[" * 100_000, "line", "not JSON"),
]


@pytest.mark.parametrize(("row", "field", "reason"), BAD_ROWS)
def test_a_bad_row_is_named_by_row_and_field_and_the_good_ones_stay(tmp_path, row, field, reason):
    path = write_lists(tmp_path / "pairs.jsonl", [one(), row, one(query="另一个")])
    reading = read_data([path])
    assert [record.query for record in reading.records] == ["鱼油怎么吃", "另一个"]
    ((where, found, why),) = left_out(reading)
    assert (where, found) == ("row 2", field) and why.startswith(reason)


BAD_PASSAGES = [
    ({"doc_id": "c"}, "text is missing"),
    ({"doc_id": "c", "text": "  "}, "text is missing"),
    ({"doc_id": True, "text": "x"}, "doc_id"),
    ({"doc_id": [1], "text": "x"}, "doc_id"),
    ({"doc_id": "c", "text": "x", "score": "high"}, "score"),
    ({"doc_id": "c", "text": "x", "score": True}, "score"),
    (None, "expected doc_id and text"),
    (3, "expected doc_id and text"),
]


@pytest.mark.parametrize(("passage", "reason"), BAD_PASSAGES)
def test_a_bad_passage_is_named_and_costs_its_row_nothing_else(tmp_path, passage, reason):
    path = write_lists(tmp_path / "pairs.jsonl", [one(negatives=[passage, {"doc_id": "b", "text": "退烧"}])])
    reading = read_data([path])
    assert [passage.doc_id for passage in reading.records[0].negatives] == ["b"]
    ((where, field, why),) = left_out(reading)
    assert (where, field) == ("row 1", "negatives.0") and why.startswith(reason)


def test_a_byte_that_is_no_utf8_spoils_its_own_row_only(tmp_path):
    path = write_lists(tmp_path / "pairs.jsonl", [one()])
    path.write_bytes(b"\xff\xfe{}\n" + path.read_bytes())
    reading = read_data([path])
    assert len(reading.records) == 1 and left_out(reading)[0][:2] == ("row 1", "line")


def test_a_passage_of_60_000_characters_is_cut_and_counted(tmp_path):
    path = write_lists(tmp_path / "pairs.jsonl", [one(negatives=[{"doc_id": "long", "text": "长" * 60_000}])])
    reading = read_data([path])
    assert reading.shortened == 1 and len(reading.records[0].negatives[0].text) == LONGEST_TEXT


def test_passages_that_are_plain_texts_are_named_by_their_text(tmp_path):
    path = write_lists(tmp_path / "pairs.jsonl", [one(positives=["每日一粒"], negatives=["退烧", "退烧 "])])
    (record,) = read_data([path]).records
    assert record.negatives[0].doc_id == record.negatives[1].doc_id != record.positives[0].doc_id


@pytest.mark.parametrize("rows", [["{"], [one(positives=[])], [""]])
def test_data_without_a_usable_row_is_refused_in_a_line(tmp_path, rows):
    path = write_lists(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(BadInput, match=r"^[^\n]*pairs\.jsonl[^\n]*none of \d rows can be used[^\n]*$"):
        read_data([path])


@pytest.mark.parametrize("name", ["missing.jsonl", "notes.txt", "empty"])
def test_a_path_that_is_no_training_data_is_refused_in_a_line(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=rf"^[^\n]*{name}[^\n]*$"):
        read_data([tmp_path / name])


def test_a_folder_of_click_feedback_is_read(tmp_path):
    write_lists(tmp_path / PAIRS, [one(), one(query="没有反例", negatives=[])])
    (tmp_path / "manifest.json").write_text("{}")
    assert [len(record.negatives) for record in read_data([tmp_path]).records] == [1, 0]


def test_a_beir_folder_gives_answers_a_pool_and_the_description_as_context(tmp_path):
    write_lists(
        tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "鱼油", "text": "每日一粒"}, {"_id": "d2", "text": "退烧"}]
    )
    queries = [
        {"_id": "q1", "text": "怎么吃", "descriptions": ["我怀孕了"]},
        {"_id": "q2", "text": "无答案"},
        {"_id": "q3", "text": "不在库中"},
        {"_id": "q4"},
    ]
    write_lists(tmp_path / "queries.jsonl", queries)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq3\td9\t1\n", encoding="utf-8")
    reading = read_data([tmp_path])
    (record,) = reading.records
    assert record.query == "我怀孕了\n怎么吃"
    assert [passage.text for passage in record.positives] == ["鱼油\n每日一粒"] and len(reading.pool) == 2
    assert [reason for _, _, reason in left_out(reading)] == [
        "no relevant passage",
        "not in corpus.jsonl",
        "expected an object with _id and text",
    ]


def bvt(tmp_path):
    hits = [{"content": "每日一粒", "doc_id": "d1"}, {"content": "退烧", "doc_id": "d2"}]
    rows = [
        BvtRow(
            original_query="怎么吃",
            user_profile="孕妇",
            history_summary="在问鱼油",
            history_context="用户: 鱼油\n助手: 您请说",
            query_id="q1",
            recall_results=hits,
            recall_count=2,
        ),
        BvtRow(original_query="没找到", query_id="q2", recall_results=hits[1:], recall_count=1),
        BvtRow(original_query="没判断", query_id="q9", recall_results=hits, recall_count=2),
    ]
    write_workbook(tmp_path / "test_sft.xlsx", rows)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\n", encoding="utf-8")
    write_lists(tmp_path / "corpus.jsonl", [{"_id": "d3", "text": "答案"}])
    return tmp_path / "test_sft.xlsx"


def test_a_bvt_export_with_qrels_gives_its_other_hits_as_hard_negatives(tmp_path):
    reading = read_data([bvt(tmp_path)], tmp_path / "qrels.tsv", tmp_path / "corpus.jsonl")
    first, second = reading.records
    # As the service reads the same conversation.
    asked = {"query": "怎么吃", "tenant_id": "t", "user_profile": "孕妇", "history_summary": "在问鱼油"}
    request = ConversationRequest.model_validate(asked | {"history": "用户: 鱼油\n助手: 您请说"})
    assert first.query == asked_text(request.query, request.context) == "孕妇\n在问鱼油\n鱼油\n您请说\n怎么吃"
    assert [p.doc_id for p in first.positives] == ["d1"] and [n.doc_id for n in first.negatives] == ["d2"]
    assert [p.doc_id for p in second.positives] == ["d3"] and [n.doc_id for n in second.negatives] == ["d2"]
    assert [line.field for line in reading.left_out] == ["query_id"]


def test_a_bvt_export_without_qrels_is_refused_in_a_line(tmp_path):
    with pytest.raises(BadInput, match=r"^[^\n]*test_sft\.xlsx[^\n]*data\.qrels[^\n]*$"):
        read_data([bvt(tmp_path)])


# Cleaning


def cleaned(tmp_path, *rows):
    return clean(read_data([write_lists(tmp_path / "pairs.jsonl", list(rows))]).records)


def test_a_text_on_both_sides_is_taken_from_both_and_named(tmp_path):
    answers = [{"doc_id": "a", "text": "每日一粒"}, {"doc_id": "c", "text": "饭后"}]
    rest, conflicts = cleaned(tmp_path, one(positives=answers, negatives=[{"doc_id": "x", "text": " 每日一粒"}]))
    assert [passage.doc_id for passage in rest[0].positives] == ["c"] and not rest[0].negatives
    assert "row 1" in str(conflicts[0]) and "'a' and 'x'" in str(conflicts[0])


def test_rows_of_one_query_become_one_and_their_contradictions_are_named_by_both_rows(tmp_path):
    other = one(
        query="鱼油怎么吃 ",
        positives=[{"doc_id": "c", "text": "饭后"}],
        negatives=[{"doc_id": "a", "text": "每日一粒"}],
    )
    (record,), conflicts = cleaned(tmp_path, one(), other)
    assert [passage.doc_id for passage in record.positives] == ["c"]
    assert "row 1 and row 2" in str(conflicts[0])


def test_a_query_whose_only_answer_contradicts_itself_is_left_out(tmp_path):
    rest, conflicts = cleaned(tmp_path, one(negatives=[{"doc_id": "a", "text": "每日一粒"}]), one(query="另一个"))
    assert [record.query for record in rest] == ["另一个"]
    assert conflicts[-1].reason == "no answer is left"


def test_a_text_given_twice_on_one_side_counts_once(tmp_path):
    rest, conflicts = cleaned(
        tmp_path, one(negatives=[{"doc_id": "b", "text": "退烧"}, {"doc_id": "b2", "text": "退烧"}])
    )
    assert len(rest[0].negatives) == 1 and not conflicts


def test_rows_are_plain_json_of_the_contract(tmp_path):
    row = json.loads(json.dumps(lists(1)[0]))
    assert set(row) == {"query_text", "positives", "negatives", "source_chunk", "meta"}
