"""The parts that the reranker's benchmark is made of: no leakage, a biased month, weights in blocks of four bits."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks.reranker import main
from benchmarks.reranker_runs.clicks import click_log, simulate_month
from benchmarks.reranker_runs.e5_weights import _BLOCK, dequantise, unpack
from benchmarks.reranker_runs.ranking import kept_scores, ordered, values_of
from benchmarks.reranker_runs.sets import bm25_candidates, read_set, write_training_file
from reranker.data.reading import read_data
from reranker.data.records import Passage, Record
from reward.records.files import BadInput
from tests.support.reranker_sets import write_lists
from tests.support.tiny_models import save_bert


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


def test_of_a_set_that_is_split_already_training_leaves_out_what_testing_shares(tmp_path):
    one = read_set(write_beir(tmp_path, split=True), (1000, 1000, 1000), 0)
    assert len(one.test) == 15  # every fourth
    # Some of the others answer with a tested passage.
    assert 30 <= len(one.train) + len(one.validation) < 45
    assert all(found["queries"] == found["answers"] == 0 for found in one.check.values())


def test_candidates_hold_a_word_of_the_query_and_what_is_no_answer_becomes_negative(tmp_path):
    one = read_set(write_beir(tmp_path), (1000, 1000, 1000), 0)
    names = bm25_candidates(one.passages, [record.query for record in one.train])
    for record, found in zip(one.train, names, strict=True):
        best = next(iter(found))
        assert record.query.split()[0] in one.passages[best] and found[best] == max(found.values()) == 1
    path = write_training_file(tmp_path / "train.jsonl", one.train, [["d0", "d1"] for _ in one.train], one)
    for record, row in zip(one.train, map(json.loads, path.read_text().splitlines()), strict=True):
        answers = {passage.doc_id for passage in record.positives}
        assert {passage["doc_id"] for passage in row["negatives"]} == {"d0", "d1"} - answers
    assert len(read_data([path]).records) == len(one.train)


def test_lists_of_ones_own_are_trained_on_and_nothing_of_them_is_tested(tmp_path):
    folder = write_beir(tmp_path)
    rows = [
        {"query_text": f"asked {i}", "positives": [f"word{i} common text"], "negatives": [f"word{i + 1} common text"]}
        for i in range(20)
    ]
    one = read_set(folder, (1000, 1000, 1000), 0, write_lists(tmp_path / "lists.jsonl", rows))
    assert [record.query for record in one.train] == [f"asked {i}" for i in range(20)]
    assert one.train[3].positives[0].doc_id == "d3"  # the corpus's own name
    # q21 answers with d20; queries 0 to 20 have their answers in the file.
    assert {int(record.query.split()[0][4:]) for record in (*one.validation, *one.test)} == set(range(21, 60))
    assert all(found["queries"] == found["answers"] == 0 for found in one.check.values())


def test_in_context_the_reranker_reads_the_question_and_bm25_the_rewrite(tmp_path):
    folder = write_beir(tmp_path, split=True)
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"history": ["what is said", f"answer {number}"], "split": "dev" if number % 6 < 3 else "train"}
    write_lists(folder / "queries.jsonl", rows)
    one = read_set(folder, (1000, 1000, 1000), 0, in_context=True)
    record = one.test[0]
    number = record.source.rpartition(" ")[2]
    assert record.query == f"what is said\nanswer {int(number) - 1}\nword{int(number) - 1} ?"
    assert one.rewrites[record.query] == f"word{int(number) - 1} rewritten"
    assert len(one.candidates([record])[0]) == 1  # of the rewrite's words; those of the history are in no passage


class Longest:
    """Scores a passage by its length."""

    def __init__(self):
        self.calls = 0

    def predict(self, pairs, **_):
        self.calls += 1
        return [len(passage) / 10 for _, passage in pairs]


def test_candidates_are_scored_once_and_a_stopped_scoring_goes_on(tmp_path):
    records = [Record(f"q{i}", (Passage("b", "long text"),), (), f"f: row {i}") for i in range(25)]
    passages, candidates = {"a": "text", "b": "long text"}, [{"a": 1.0, "b": 0.8}] * 25
    model = Longest()
    whole = kept_scores(tmp_path / "whole", lambda: model, records, candidates, passages)
    assert kept_scores(tmp_path / "whole", lambda: pytest.fail("opened"), records, candidates, passages) == whole
    (tmp_path / "part").write_text("".join((tmp_path / "whole").read_text().splitlines(True)[:20]))
    assert kept_scores(tmp_path / "part", lambda: model, records, candidates, passages) == whole
    assert model.calls == 3 + 1
    # The reranker alone puts the long passage first, BM25 alone the other, and half of each what the sum says.
    assert ordered(candidates, whole, 1.0)[0] == ["b", "a"] and ordered(candidates, whole, 0.0)[0] == ["a", "b"]
    assert ordered(candidates[:1], [{"a": 0.4, "b": 0.7}], 0.5) == [["b", "a"]]
    assert ordered(candidates[:1], [{"a": 0.4, "b": 0.5}], 0.5) == [["a", "b"]]
    assert values_of(records, ordered(candidates, whole, 0.0))["MRR@10"].tolist() == [0.5] * 25


@pytest.mark.full
def test_a_refused_model_is_named_and_the_others_are_measured(tmp_path, capsys):
    base = save_bert(tmp_path / "base", "abcdefghijklmnopqrstuvwxyz0123456789 ?", labels=1)
    folders = ["--beir", str(write_beir(tmp_path / "set")), "--base", str(base), "--work", str(tmp_path / "work")]
    sizes = ["--steps", "2", "--throughput-steps", "2", "--max-length", "32", "--no-onnx"]
    assert main([*folders, *sizes, "--learning-rate", "1e-12"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "\n" not in found["refused"]["trained"] and found["after"] is None and found["before"] is not None


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
