"""reward_rules.md that cannot drift, planted negatives, and which rules still teach."""

import json

import pytest

from reward.medical.planted import load_planted, score_planted
from reward.medical.rules import question_of
from reward.medical.rules_page import rules_page
from reward.medical_rules import main as write_rules
from reward.planted_negatives import main as score_negatives
from reward.records.files import BadInput
from reward.records.outcome import Rollout
from reward.records.sample import Context, Metadata, Sample
from reward.rollouts.rollout_log import FOLDER, RolloutLog, read_rollouts
from reward.rollouts.saturation import saturation
from reward.saturation import main as report_saturation
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import RewardSettings
from reward.task import make_task

GOOD = (
    "<think>患者胸口疼痛并出冷汗，考虑急性心肌梗死。这是急症，有生命危险。还需要心电图检查。应建议拨打120。</think>"
    "请立即拨打120，让他平卧休息。"
)
BAD = "<think>可能是劳累。</think>多休息，喝点热水，听听音乐就好。"


def rollout(task, question: str, completion: str, step: int, number: int) -> Rollout:
    sample = Sample(sample_id=f"m{number}", original_query=question, metadata=Metadata(tenant_id="medical"))
    text = task.parse(completion)
    assert task.gate(sample, text) is None and task.requests(sample, text, Rollout.model_construct()) == {}
    bare = {"step": step, "time": 1.0, "sample": sample, "completion": completion}
    outcome = task.combine(sample, text, Rollout.model_construct(teacher=None, teacher_failure=None), step)
    return Rollout(**bare, outcome=outcome)


@pytest.fixture
def task():
    return make_task("medical", RewardSettings(), lambda sample: None, has_judge=False, medical=MedicalSettings())


@pytest.fixture
def run(tmp_path, task):
    log = RolloutLog(tmp_path / FOLDER)
    for step in (1, 2):
        for number in range(4):
            for completion in (GOOD, BAD if number % 2 else GOOD):
                log.append(rollout(task, "爸爸突然胸口剧痛出冷汗", completion, step, number))
    log.close()
    return tmp_path


def test_a_logged_rollout_keeps_what_its_reward_is_made_of(run, task):
    logged = list(read_rollouts(run))
    gated = [one for one in logged if one.outcome.kind == "gated"]
    assert len(logged) == 16 and len(gated) == 4
    assert {one.outcome.reason.value for one in gated} == {"emergency_missed"}
    assert all(one.outcome.parts.medical.emergency == 0.0 for one in gated)
    fields = [task.fields(one) for one in logged]
    assert len({frozenset(row) for row in fields}) == 1
    metrics = task.metrics(fields)
    assert metrics["reward_emergency"] == 0.75 and metrics["rules_only_rate"] == 1.0
    assert "reward_teacher" not in metrics


def test_what_the_patient_said_before_belongs_to_the_question(task):
    context = Context(user_profile="对青霉素过敏", history_context="用户: 我爸突然胸口剧痛冒冷汗\n助手: 多久了？")
    sample = Sample(
        sample_id="m", original_query="十分钟了，怎么办", metadata=Metadata(tenant_id="medical"), context=context
    )
    assert "助手" not in question_of(sample)
    findings = Rollout.model_construct(teacher=None, teacher_failure=None)
    outcome = task.combine(sample, "多休息，喝点热水。", findings, 1)
    assert outcome.reason.value == "emergency_missed"
    outcome = task.combine(sample, "请立即拨打120。吃点阿莫西林就行。", findings, 1)
    assert "contraindicated" in outcome.detail


def test_the_page_of_rules_is_what_the_settings_give(tmp_path, capsys):
    page = tmp_path / "reward_rules.md"
    assert write_rules(["--out", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == rules_page(MedicalSettings())
    assert write_rules(["--check", str(page)]) == 0
    # A changed weight, a changed word list, an edited copy: each is a drift.
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rewriter: {medical: {weights: {risk: 0.2}}}", encoding="utf-8")
    assert write_rules(["--settings", str(recipe), "--check", str(page)]) == 1
    assert "0.2" in capsys.readouterr().err
    page.write_text(page.read_text(encoding="utf-8").replace("-1", "-0.9", 1), encoding="utf-8")
    assert write_rules(["--check", str(page)]) == 1
    assert write_rules(["--check", str(tmp_path / "none.md")]) == 2


@pytest.mark.parametrize("text", ["medical: {formula: v9}", "medical: {colour: red}", "[1", "- 1"])
def test_settings_that_are_none_end_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    assert write_rules(["--settings", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_planted_answer_passes_under_v2_and_some_do_under_v1(tmp_path):
    assert score_negatives(["--out", str(tmp_path / "planted.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "planted.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) >= 25 and all(line["seen"] and line["reward"] <= -0.5 for line in lines)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("medical: {formula: teacher-v1}", encoding="utf-8")
    assert score_negatives(["--settings", str(recipe)]) == 1


def test_own_negatives_are_read_and_bad_ones_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    line = {"id": "a", "question": "感冒吃什么", "answer": "吃头孢两粒", "fault": "risky_advice"}
    path.write_text(json.dumps(line), encoding="utf-8")
    assert [score.passes for score in score_planted(load_planted(path), MedicalSettings())] == [False]
    for bad, message in (
        (f"{json.dumps(line)}\n{json.dumps(line)}", "row 2: id 'a' is there twice"),
        (json.dumps(line | {"fault": "rude"}), "row 1: fault"),
        ("", "holds no planted answer"),
    ):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(BadInput, match=message):
            load_planted(path)


def test_saturation_names_the_rules_that_teach_nothing(run, tmp_path):
    rules = {rule.rule: rule for rule in saturation(read_rollouts(run), MedicalSettings())}
    assert rules["emergency acted on"].state == "ok" and rules["emergency acted on"].passed == 0.75
    assert rules["emergency acted on"].flat_groups == 0.5
    assert rules["no risk"].state == "always passes"
    assert rules["no false alarm"].state == "no rollout"
    assert report_saturation(["--run", str(run), "--last", "1", "--out", str(tmp_path / "s.csv")]) == 0
    assert "emergency acted on" in (tmp_path / "s.csv").read_text(encoding="utf-8-sig")
    assert report_saturation(["--run", str(tmp_path / "none")]) == 2
