"""The quick start's own judge: simulated customers' clicks, and the tiny encoder that learns from them."""

import numpy as np
import pytest

from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from examples.make_tiny_encoder import main as make_encoder
from examples.simulate_clicks import main as simulate
from reranker.data.reading import read_data
from reranker.modelling.opening import open_model
from reranker.modelling.scoring import logits
from reranker.settings.run import load_settings
from tests.support.commands import ROOT
from tests.support.reranker_sets import write_lists


def batch_test(tmp_path, found):
    """A workbook of 30 questions, of which each gets five passages; its answer comes second where it is found."""
    rows = []
    for i in range(30):
        hits = [{"content": f"passage {(i + j) % 30}", "doc_id": f"d{(i + j) % 30}"} for j in (1, 0 if found else 2, 3)]
        rows.append(
            BvtRow(
                original_query=f"how {i}",
                history_summary=f"of {i}",
                query_id=f"q{i}",
                recall_results=hits,
                recall_count=3,
            )
        )
    write_workbook(tmp_path / "test.xlsx", rows)
    qrels = "".join(f"q{i}\td{i}\t1\n" for i in range(30))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return [
        "--input",
        str(tmp_path / "test.xlsx"),
        "--qrels",
        str(tmp_path / "qrels.tsv"),
        "--out",
        str(tmp_path / "pairs.jsonl"),
    ]


def test_customers_click_on_what_answers_and_the_trainer_reads_their_clicks(tmp_path):
    assert simulate([*batch_test(tmp_path, found=True), "--showings", "40"]) == 0
    reading = read_data([tmp_path / "pairs.jsonl"])
    assert len(reading.records) > 15 and not reading.left_out
    for record in reading.records:
        number = record.query.rpartition(" ")[2]
        assert record.query == f"of {number}\nhow {number}"  # as the service's reranker reads it
        assert [passage.text for passage in record.positives] == [f"passage {number}"]


def test_answers_that_were_not_shown_are_not_clicked_on(tmp_path, capsys):
    assert simulate([*batch_test(tmp_path, found=False), "--showings", "40"]) == 2
    assert "no hit is clicked often enough" in capsys.readouterr().err


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    rng = np.random.default_rng(0)
    texts = ["".join(chr(0x4E00 + letter) for letter in rng.permutation(600)[:12]) for _ in range(200)]
    write_lists(folder / "texts.jsonl", [{"text": text} for text in texts])
    assert make_encoder(["--text", str(folder / "texts.jsonl"), "--out", str(folder / "model"), "--words", "0"]) == 0
    return folder / "model", texts


def test_the_tiny_encoder_ranks_by_words_in_common_before_it_has_learned(encoder):
    folder, texts = encoder
    opened = open_model(folder, 64)
    assert not opened.new_head and not opened.warnings
    model = opened.cross_encoder
    for query in texts[:5]:
        with_its_letters = query[::-1]
        scores = logits(model, [(query[:6], with_its_letters), *((query[:6], other) for other in texts[100:110])])
        assert scores[0] == scores.max()


def test_the_tiny_encoder_tells_query_from_passage(encoder):
    features = open_model(encoder[0], 64).cross_encoder.preprocess([("一丁", "七丄")])
    assert features["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_the_quick_starts_settings_are_valid(tmp_path):
    text = (ROOT / "examples" / "judge.yaml").read_text().replace("OUT", str(tmp_path)).replace("SEED", "3")
    (tmp_path / "judge.yaml").write_text(text)
    assert load_settings(tmp_path / "judge.yaml").seed == 3
