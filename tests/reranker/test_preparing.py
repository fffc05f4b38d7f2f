"""All the data of a run: parts that share nothing, and no part's answers among another's negatives."""

from reranker.data.preparing import prepare
from reranker.data.records import fold
from reranker.settings.run import load_settings
from tests.support.reranker_sets import lists, write_lists, write_run


def prepared(tmp_path, **changes):
    return prepare(load_settings(write_run(tmp_path, **changes)))


def test_training_never_draws_the_answer_of_another_part_as_a_negative(tmp_path):
    mining = {"mining": {"depth": 20}}
    data = prepared(tmp_path, rows=lists(60, negatives=1), data=mining)
    elsewhere = {
        fold(p.text) for group in (*data.validation, *data.forgetting) for p in group.passages[: group.positives]
    }
    drawn = {fold(passage.text) for passage in data.pool} | {fold(p.text) for row in data.mined.negatives for p in row}
    assert elsewhere and drawn and not elsewhere & drawn
    for part in ("validation", "forgetting"):
        found = data.counts[f"train_shares_with_{part}"]
        assert found["queries"] == found["answers"] == 0


def test_a_validation_list_holds_the_asked_number_of_candidates_and_its_answers_first(tmp_path):
    data = prepared(tmp_path, rows=lists(60), data={"candidates": 20})
    assert {len(group.passages) for group in data.validation} == {20}
    assert all("是" in group.passages[0].text and group.positives == 1 for group in data.validation)


def test_what_a_named_validation_set_shares_leaves_the_training_data_and_is_counted(tmp_path):
    rows = lists(40)
    named = write_lists(tmp_path / "validation.jsonl", rows[:5])
    data = prepared(tmp_path, rows=rows, data={"validation": [str(named)]})
    assert data.counts["taken_out_for_named_sets"] == 5 and data.counts["validation"] == 5
    assert data.counts["train_shares_with_validation"]["queries"] == 0


def test_the_hash_is_that_of_the_data_and_its_split(tmp_path):
    first = prepared(tmp_path).sha256
    assert prepared(tmp_path).sha256 == first
    assert prepared(tmp_path, seed=5).sha256 != first
    assert prepared(tmp_path, rows=lists(40, seed=1)).sha256 != first
