"""The parts that the reranker's benchmark is made of: no leakage, a biased month, weights in blocks of four bits."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks.reranker_runs.clicks import click_log, simulate_month
from benchmarks.reranker_runs.e5_weights import _BLOCK, dequantise, unpack
from benchmarks.reranker_runs.sets import bm25_candidates, read_set, write_training_file
from reranker.data.reading import read_data
from reranker.data.records import Passage, Record
from reward.records.files import BadInput
from tests.support.reranker_sets import write_lists


def write_beir(folder, n=60, split=False):
    write_lists(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": f"word{i} common text"} for i in range(n)])
    queries = [{"_id": f"q{i}", "text": f"word{i} ?", "descriptions": ["long"]} for i in range(n)]
    for i, row in enumerate(queries):
        row |= {"split": "dev" if i % 4 == 0 else "train", "rewrite": f"word{i} rewritten"} if split else {}
    write_lists(folder / "queries.jsonl", queries)
    # Two queries in three share their answer with another one.
    qrels = "".join(f"q{i}\td{i - i % 3 // 2}\t1\n" for i in range(n))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return folder


def test_a_set_is_split_by_components_and_the_check_is_empty(tmp_path):
    one = read_set(write_beir(tmp_path), (1000, 1000, 1000), 0)
    assert len(one.train) + len(one.validation) + len(one.test) == 60 and one.test and one.validation
    assert all(found["queries"] == found["answers"] == 0 for found in one.check.values())
    assert one.test[0].query.endswith(" ?")  # no description makes it easy


def test_a_set_that_is_split_already_is_taken_so_or_refused(tmp_path):
    with pytest.raises(BadInput, match=r"^[^\n]*share queries or answers[^\n]*$"):
        read_set(write_beir(tmp_path, split=True), (1000, 1000, 1000), 0)


def test_candidates_hold_a_word_of_the_query_and_what_is_no_answer_becomes_negative(tmp_path):
    one = read_set(write_beir(tmp_path), (1000, 1000, 1000), 0)
    names = bm25_candidates(one.passages, [record.query for record in one.train])
    assert all(
        record.query.split()[0] in one.passages[found[0]] for record, found in zip(one.train, names, strict=True)
    )
    path = write_training_file(tmp_path / "train.jsonl", one.train, [["d0", "d1"] for _ in one.train], one)
    for record, row in zip(one.train, map(json.loads, path.read_text().splitlines()), strict=True):
        answers = {passage.doc_id for passage in record.positives}
        assert {passage["doc_id"] for passage in row["negatives"]} == {"d0", "d1"} - answers
    assert len(read_data([path]).records) == len(one.train)


def test_a_simulated_month_is_biased_by_position_and_that_of_its_seed():
    passages = {f"d{i}": f"text {i}" for i in range(10)}
    records = [Record(f"q{i}", (Passage(f"d{i}", f"text {i}"),), (), f"f: row {i}") for i in range(10)]
    order = [[f"d{(i + j) % 10}" for j in range(10)] for i in range(10)]
    month = simulate_month(records, order, passages, 0)
    assert month == simulate_month(records, order, passages, 0)
    # Answers come first: the clicks find them, and what was passed over is negative.
    assert month.right > month.wrong and any(record.negatives for record in month.records)
    last = simulate_month(records, [names[::-1] for names in order], passages, 0)
    assert last.right < month.right


def test_the_clicks_of_a_month_fall_with_the_place():
    records = [Record("q", (Passage("none", "t"),), (), "f: row 1")]
    log = click_log(records, [[f"d{i}" for i in range(10)]], 0)
    clicks = Counter(click.position for click in log if click.clicked)
    assert clicks[1] > 2 * clicks[5] and clicks[1] > 4 * clicks[10]


def test_weights_in_blocks_of_four_bits_become_a_matrix():
    blocks = np.zeros(2, _BLOCK)
    blocks["scale"] = [0.5, 2]
    blocks["nibbles"][0, 0] = 0xF0  # weight 0: 0 - 8, weight 16: 15 - 8
    blocks["nibbles"][1] = 0x88
    found = dequantise(blocks, 2)
    assert found.shape == (2, 32) and found[0, 0] == -4 and found[0, 16] == 3.5 and not found[1].any()


def test_a_file_that_is_no_model_is_refused_in_a_line(tmp_path):
    (tmp_path / "e5.bin").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=r"^[^\n]*e5\.bin: not a model file[^\n]*$"):
        unpack(tmp_path / "e5.bin", tmp_path / "out")
