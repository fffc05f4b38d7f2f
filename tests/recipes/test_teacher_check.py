"""What preflight finds out about the teacher of a medical recipe."""

import pytest

from recipes.checks.finding import Level
from recipes.checks.teacher import teacher_findings
from recipes.preflight import main
from reward.records.sample import Metadata, Sample
from reward.settings.recipe import RewriterSettings
from tests.support.scripted_teacher import ScriptedTeacher

TENANT = {"tenant_id": "medical", "short_id": "med", "system_prompt": "你是医生助手。"}
SAMPLE = Sample(sample_id="s", original_query="流鼻涕怎么办？", metadata=Metadata(tenant_id="medical"))


@pytest.fixture
def server():
    teacher = ScriptedTeacher()
    yield teacher
    teacher.close()


def settings(tmp_path, server=None, **changes) -> RewriterSettings:
    price = {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12}
    teacher = None
    if server is not None:
        teacher = {"model": "t", "base_url": server.url, "price": price, "attempts": 1, **changes}
    ledger = {"path": tmp_path / "ledger.sqlite", "run_id": "r"}
    return RewriterSettings(task="medical", tenant=TENANT, ledger=ledger, teacher=teacher)


def found(*arguments) -> tuple[Level, str]:
    reward, teacher = teacher_findings(*arguments)
    assert reward.level is Level.OK and "teacher-v2" in reward.text
    return teacher.level, teacher.text


def test_a_teacher_that_answers_is_ok_and_is_asked_once(tmp_path, server):
    for _ in range(2):
        level, text = found(settings(tmp_path, server), [SAMPLE])
        assert level is Level.OK and "grades a cautious answer" in text
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["503", "401", "prose"])
def test_a_teacher_that_fails_is_a_warning_for_the_rules_can_score_alone(tmp_path, server, fault):
    server.faults = [fault]
    level, text = found(settings(tmp_path, server), [SAMPLE])
    assert level is Level.WARNING and "the rules score alone" in text


def test_what_a_person_must_mend_is_bad(tmp_path, server):
    level, text = found(settings(tmp_path, server, api_key_env="NO_SUCH_KEY"), [SAMPLE])
    assert level is Level.BAD and "NO_SUCH_KEY is not set" in text
    level, text = found(settings(tmp_path, server, template="v9"), [SAMPLE])
    assert level is Level.BAD and "training-v9" in text


def test_no_teacher_and_no_data_are_warnings(tmp_path, server):
    assert found(settings(tmp_path), [SAMPLE])[0] is Level.WARNING
    assert found(settings(tmp_path, server), [])[0] is Level.WARNING


def test_a_medical_recipe_without_data_names_its_builder(tmp_path, capsys):
    assert main(["medical_grpo", "machine=cpu", "model=tiny", f"recipe.data_dir={tmp_path}"]) == 2
    printed = capsys.readouterr().out
    assert "prepare it with python -m data_prep.build_medical" in printed and "retrieval" not in printed
