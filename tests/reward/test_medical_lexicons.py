"""Word lists of the medical rules: what is wrong with one is one clear line."""

import shutil

import pytest
import yaml

from reward.medical.lexicons import FOLDER, Lexicons
from reward.medical.rules import score_rules
from reward.records.files import BadInput
from reward.settings.medical import MedicalSettings


@pytest.fixture
def folder(tmp_path):
    for path in FOLDER.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change(folder, name, edit):
    path = folder / f"{name}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")


def test_every_list_names_its_version_and_sources():
    known = Lexicons()
    assert len(known.versions) == len(list(FOLDER.glob("*.yaml"))) == 7
    assert all(known.versions.values())


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("emergency_signs", lambda v: v["signs"].append(v["signs"][0]), "sign '胸痛伴危险征象' is there twice"),
        ("emergency_signs", lambda v: v["signs"][3]["any"].append(v["signs"][3]["any"][0]), "is there twice"),
        ("drugs", lambda v: v["supplement"].append("布洛芬"), "drug '布洛芬' is there twice"),
        ("drugs", lambda v: v["contraindicated"].append(v["contraindicated"][0]), "is there twice"),
        ("drugs", lambda v: v["prescription"].append("(头孢"), "no pattern"),
        ("risks", lambda v: v.pop("certainty"), "certainty"),
        ("risks", lambda v: v.update(more="x"), "more"),
        ("care", lambda v: v.update(sources=[]), "sources"),
        ("emergency_signs", lambda v: v["signs"][0].update(any=["x"]), "not both"),
        ("emergency_signs", lambda v: v["signs"][0].update(level="red"), "level"),
    ],
)
def test_a_broken_list_is_refused_by_file_and_entry(folder, name, edit, message):
    change(folder, name, edit)
    with pytest.raises(BadInput) as refusal:
        Lexicons(folder)
    assert f"{name}.yaml" in str(refusal.value) and message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_yaml_is_refused(folder):
    (folder / "care.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(BadInput, match="not YAML"):
        Lexicons(folder)


def test_a_hospital_adds_its_own_sign(tmp_path):
    shutil.copy(FOLDER / "emergency_signs.yaml", tmp_path)
    sign = {"name": "高原肺水肿", "level": "emergency", "kind": "symptom", "any": ["粉红色泡沫痰"]}
    change(tmp_path, "emergency_signs", lambda v: v["signs"].append(sign))
    question, answer = "到拉萨第二天咳粉红色泡沫痰", "<think>高原反应。</think>多休息，多喝水。"
    assert score_rules(question, answer, MedicalSettings(lexicons=tmp_path)).signs == ("高原肺水肿",)
    assert "高原肺水肿" not in score_rules(question, answer, MedicalSettings()).signs
