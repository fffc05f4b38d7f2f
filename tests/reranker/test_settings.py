"""A run's YAML: an unknown key and a value out of range are one line each."""

from pathlib import Path

import pytest

import reranker
from reranker.settings.run import load_settings
from reward.records.files import BadInput
from tests.support.reranker_sets import write_run


def test_a_runs_settings_are_read_and_have_a_hash_of_what_decides_the_result(tmp_path):
    path = write_run(tmp_path)
    settings = load_settings(path)
    assert settings.training.loss == "margin" and settings.groups.hard == 2
    assert load_settings(write_run(tmp_path, training={"report_to": ["tensorboard"]})).sha256 == settings.sha256
    assert load_settings(write_run(tmp_path, seed=1)).sha256 != settings.sha256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sed": 1}, "sed"),
        ({"training": {"loss": "hinge"}}, "training.loss"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"groups": {"hard": 0, "random": 0}}, "groups"),
        ({"data": {"validation_share": 0.9}}, "data.validation_share"),
        ({"data": {"train": []}}, "data.train"),
        ({"data": {"mining": {"depht": 3}}}, "data.mining.depht"),
        ({"training": {"teacher": "models/t"}}, "training.teacher"),
        ({"max_length": 2}, "max_length"),
    ],
)
def test_a_wrong_setting_is_named_in_a_line(tmp_path, changes, field):
    with pytest.raises(BadInput, match=rf"^[^\n]*run\.yaml[^\n]*{field}[^\n]*$"):
        load_settings(write_run(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_a_file_that_holds_no_settings_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"^[^\n]*run\.yaml[^\n]*$"):
        load_settings(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "path", sorted((Path(reranker.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_shipped_configurations_are_valid(path):
    assert load_settings(path).output.parts[0] == "outputs"
