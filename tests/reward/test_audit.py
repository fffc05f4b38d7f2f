"""`python -m reward.audit`: each alarm trips on its own fault and stays silent on a healthy run."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from reward.audit import audit_run, has_ended, main
from reward.records.outcome import AbstainReason, Gated, GateReason, Judgement
from reward.records.sample import Metadata
from reward.rollouts.alarm import AlarmLimits
from reward.rollouts.alarms import check_run, judge_drift
from reward.rollouts.rollout_log import FOLDER, RolloutLog
from reward.rollouts.text_measures import is_stuffed
from reward.rollouts.windows import Window
from reward.settings.recipe import LengthSettings, RewardSettings
from tests.support.commands import start_module
from tests.support.logged_rollouts import (
    LEXICON,
    PRODUCTS,
    good_rewrite,
    healthy_run,
    make_rollout,
    make_sample,
    pointwise,
    write_run,
)

LIMITS = AlarmLimits()
UNGATED = RewardSettings(gates=())


def window(make, steps, prompts: int = 15, siblings: int = 8) -> list:
    """Rollouts of `steps`, made by `make(number of the prompt, number of the sibling, step)`."""
    return [
        make(prompt * 7 % 60 + step % 3, sibling, step)
        for step in steps
        for prompt in range(prompts)
        for sibling in range(siblings)
    ]


def plain(number: int, sibling: int, step: int, **update):
    ranks = (1, 2, 4, 9)
    values = {"rank": ranks[(number + sibling) % 4], "settings": UNGATED, "top1": 0.5 + 0.05 * (sibling % 5)}
    return make_rollout(number, step, **(values | update))


def judged(number: int, sibling: int, step: int, **update):
    grade = (5, 4, 3, 2)[(number + sibling) % 4] if sibling % 3 else 4
    return plain(number, sibling, step, **({"judgement": pointwise(grade, 4)} | update))


def raised(bad, good=judged, limits=LIMITS) -> dict:
    """The alarms that four steps of `bad` raise after four steps of `good`."""
    first, last = window(good, range(1, 5)), window(bad, range(101, 105))
    return {
        alarm.name: alarm for alarm in check_run(Window(first, LEXICON), Window(last, LEXICON), limits) if alarm.raised
    }


def bad_copies(number, sibling, step):
    return judged(number, sibling, step, rewrite=make_sample(number).original_query, rank=2 + sibling % 3)


def bad_lengths(number, sibling, step):
    tail = "的详细说明以及专业人士给出的建议与注意事项总结" if sibling % 4 else "说明"
    return judged(number, sibling, step, rewrite=good_rewrite(number) + tail)


def bad_short(number, sibling, step):
    return judged(number, sibling, step, rewrite=good_rewrite(number)[:3] if sibling % 4 else good_rewrite(number))


def bad_template(number, sibling, step):
    return judged(number, sibling, step, rewrite="保健品用法用量" if sibling else good_rewrite(number))


def bad_facts(number, sibling, step):
    rewrite = good_rewrite(number).replace("孕妇", "").replace("3", "")
    return judged(number, sibling, step, rewrite=rewrite)


def bad_language(number, sibling, step):
    rewrite = ("fish oil dosage", "calcium", "how to take", "storage")[number % 4] if sibling < 2 else None
    return judged(number, sibling, step, rewrite=rewrite)


def bad_keywords(number, sibling, step):
    return judged(number, sibling, step, rewrite="量量量量量量量量量" if sibling % 2 else good_rewrite(number))


def bad_judge_rules(number, sibling, step):
    return judged(number, sibling, step, rank=3, baseline_rank=3)


def bad_same_rewards(number, sibling, step):
    return judged(number, 0, step, rank=2)


def bad_pleased_judge(number, sibling, step):
    return judged(number, sibling, step, rank=(4, 9, 20, 30)[sibling % 4], judgement=pointwise(5, 4 - sibling % 2))


def bad_style(number, sibling, step):
    """Grades rise while retrieval stays what it is."""
    return judged(number, sibling, step, judgement=pointwise(5, 3))


def bad_conflict(number, sibling, step):
    place = (number + sibling) % 4
    return judged(number, sibling, step, rank=(1, 2, 4, 9)[place], judgement=pointwise((2, 3, 4, 5)[place], 4))


def bad_gates(number, sibling, step):
    rewrite = "<think>先想一想" if sibling < 3 else None
    return judged(number, sibling, step, rewrite=rewrite, settings=RewardSettings(gates=(GateReason.TEMPLATE_LEAK,)))


def bad_services(number, sibling, step):
    return judged(number, sibling, step, failed=AbstainReason.JUDGE if sibling == 0 else None)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("copy_rate", bad_copies),
        ("length_drift", bad_lengths),
        ("length_drift", bad_short),
        ("entropy_drop", bad_template),
        ("entity_drop", bad_facts),
        ("language_switch", bad_language),
        ("keyword_stuffing", bad_keywords),
        ("component_dominance", bad_judge_rules),
        ("variance_collapse", bad_same_rewards),
        ("judge_retrieval_divergence", bad_pleased_judge),
        ("judge_retrieval_divergence", bad_style),
        ("judge_retrieval_conflict", bad_conflict),
        ("gate_rate", bad_gates),
        ("abstentions", bad_services),
    ],
)
def test_each_fault_raises_its_alarm_with_examples(name, bad):
    alarm = raised(bad)[name]
    assert alarm.advice and 1 <= len(alarm.examples) <= 3
    assert len({(example.query, example.rewrite) for example in alarm.examples}) == len(alarm.examples)
    assert all(example.step > 100 for example in alarm.examples)


@pytest.mark.parametrize("good", [plain, judged])
def test_more_of_the_same_raises_nothing(good):
    assert raised(good, good) == {}


@pytest.mark.parametrize("bad", [bad_copies, bad_facts, bad_keywords, bad_language, bad_gates, bad_template])
def test_what_the_policy_did_before_training_is_no_alarm(bad):
    """Unlike abstentions, dominance and flat groups, which spoil a run from its first step on."""
    assert raised(bad, bad) == {}


def test_a_length_penalty_may_not_rule_either():
    strict = RewardSettings(gates=(), length=LengthSettings(target=1, penalty=0.05))

    def bad(number, sibling, step):
        rewrite = good_rewrite(number) + "呢" * sibling
        return plain(number, sibling, step, rank=3, baseline_rank=3, rewrite=rewrite, settings=strict)

    alarm = raised(bad, plain)["component_dominance"]
    assert "length_penalty" in alarm.advice and alarm.examples[0].note.startswith("length_penalty -")


def test_copies_that_retrieve_best_are_earned():
    def best_copy(number, sibling, step):
        return bad_copies(number, sibling, step).model_copy(update={"policy": plain(0, 0, 1, rank=1).policy})

    assert "copy_rate" not in raised(best_copy)


def test_an_alarm_needs_rollouts():
    few = window(bad_copies, [101], prompts=3)
    assert check_run(Window(window(judged, [1])), Window(few), LIMITS) == []
    limits = LIMITS.model_copy(update={"min_rollouts": 24})
    assert check_run(Window(window(judged, [1])), Window(few), limits) != []


@pytest.mark.parametrize(
    ("text", "stuffed"),
    [
        ("鱼油 用法用量", False),
        ("孕妇能不能吃鱼油，一天吃几粒比较合适", False),
        ("鱼油 功效 用法 用量 禁忌 孕妇 儿童", False),
        ("量量量量量量量量", True),
        ("糖尿病人怎样治疗钙 多点 多点 多点 多点 多点", True),
        ("鱼油 钙片 价格 厂家 功效 用法 用量 禁忌 孕妇 儿童 老人", True),
        ("how do I take fish oil with other drugs", False),
        ("fish oil fish oil fish oil fish oil", True),
        ("fish oil, dosage, price, benefits, risks, brand, storage, kids, women, elderly", True),
        ("", False),
    ],
)
def test_stuffed_texts(text, stuffed):
    assert is_stuffed(text) is stuffed


def test_a_pairwise_judge_is_watched_too():
    def preferred(number, sibling, step, likes=True):
        preference = (1.0, 0.0, 1.0, 1.0)[sibling % 4] if likes else (-1.0, 0.0, 1.0, 0.0)[(number + sibling) % 4]
        judgement = Judgement(mode="pairwise", preference=preference, orders_agree=True, intent=5)
        return plain(number, sibling, step, rank=9 if likes else 2, judgement=judgement)

    alarm = raised(preferred, lambda *place: preferred(*place, likes=False))["judge_retrieval_divergence"]
    assert alarm.value > 0.5


def test_judge_drift_is_the_last_canary_check():
    assert judge_drift({}, LIMITS) is None
    calm = {"step": 50, "kappa": 0.7, "drift": 0.05, "alarm": False}
    assert not judge_drift(calm, LIMITS).raised
    assert judge_drift({**calm, "drift": 0.25}, LIMITS).raised and judge_drift({**calm, "alarm": True}, LIMITS).raised


def run_of(tmp_path, rollouts) -> Path:
    return write_run(tmp_path / "run", rollouts)


@pytest.mark.parametrize("judge", [True, False])
def test_a_healthy_run_passes(tmp_path, capsys, judge):
    run = run_of(tmp_path, healthy_run(steps=12, judged=judge))
    assert main(["--run", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "no alarm" in printed and "steps 1-6 against 7-12" in printed and "variance_collapse" in printed


@pytest.mark.parametrize("seed", range(4))
def test_healthy_runs_pass_whatever_the_seed(tmp_path, seed):
    audit = audit_run(run_of(tmp_path, healthy_run(steps=12, seed=seed)), LIMITS)
    assert [alarm.name for alarm in audit.raised] == [] and len(audit.alarms) == 17


def test_a_hacked_run_fails_and_shows_how(tmp_path, capsys):
    run = run_of(tmp_path, [*healthy_run(steps=10), *window(bad_keywords, range(11, 21))])
    assert main(["--run", str(run), "--last", "5"]) == 1
    printed = capsys.readouterr().out
    assert "steps 1-5 against 16-20" in printed
    assert "ALARM keyword_stuffing" in printed and "'量量量量量量量量量'" in printed and "step 16" in printed


def test_long_runs_are_read_at_both_ends(tmp_path):
    run = run_of(tmp_path, healthy_run(steps=90, prompts=4, siblings=4))
    audit = audit_run(run, AlarmLimits(window=5, min_rollouts=10))
    assert (audit.first, audit.last, audit.rollouts) == ((1, 5), (86, 90), 2 * 5 * 16)


def test_validation_is_not_audited(tmp_path):
    copies = []
    for number in range(60):
        sample = make_sample(number, metadata=Metadata(tenant_id="fivedoctors", split="val"))
        copies += [make_rollout(number, 9, sample=sample, rewrite=sample.original_query)] * 20
    run = run_of(tmp_path, [*healthy_run(steps=8), *copies])
    assert audit_run(run, LIMITS).raised == []


def test_canary_alarm_decides_the_exit_code(tmp_path, capsys):
    run = run_of(tmp_path, healthy_run(steps=10))
    check = {"step": 5, "agreement": 0.6, "kappa": 0.3, "kappa_ci": [0.1, 0.5], "position_bias": 0.1, "drift": 0.4}
    (run / "canary.jsonl").write_text(json.dumps({**check, "alarm": True}) + "\n")
    assert main(["--run", str(run)]) == 1
    assert "1 alarm(s): judge_drift" in capsys.readouterr().out


def test_thresholds_come_from_a_file(tmp_path, capsys):
    run, file = run_of(tmp_path, healthy_run(steps=10)), tmp_path / "limits.yaml"
    file.write_text("abstentions: 0.0\nwindow: 3\n")
    assert main(["--run", str(run), "--thresholds", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "steps 1-3 against 8-10" in printed and "1 alarm(s): abstentions" in printed and "rag_failed" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [("copyrate: 1", "copyrate: Extra inputs"), ("copy_rate: much", "copy_rate: Input should"), ("a: [", "not YAML"),
     ("- 1", "expected `name: limit` lines"), (None, "no such file")],
)  # fmt: skip
def test_bad_thresholds_are_named(tmp_path, capsys, content, message):
    run, file = run_of(tmp_path, [make_rollout(11)]), tmp_path / "limits.yaml"
    if content is not None:
        file.write_text(content)
    assert main(["--run", str(run), "--thresholds", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--last", "0"], ["--settings", "nowhere.yaml"]])
def test_bad_arguments_end_in_one_line(tmp_path, capsys, arguments):
    run = run_of(tmp_path, healthy_run(steps=2))
    assert main(["--run", str(run), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_little_to_compare_is_said(tmp_path, capsys):
    run = run_of(tmp_path, [make_rollout(11, step=step) for step in (1, 1)])
    assert main(["--run", str(run)]) == 0 and "fewer than two training steps" in capsys.readouterr().out
    run = run_of(tmp_path / "b", [make_rollout(11, step=step) for step in (1, 2)])
    assert main(["--run", str(run)]) == 0 and "fewer than 200 rollouts" in capsys.readouterr().out
    assert main(["--run", str(tmp_path / "c")]) == 2 and main(["--run", str(tmp_path / "c"), "--follow"]) == 2


def test_when_a_run_has_ended(tmp_path):
    assert not has_ended(tmp_path)
    (tmp_path / "run.json").write_text('{"length": 100}')
    assert not has_ended(tmp_path)
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "run.json").write_text('{"length": 50}')  # of the shorter run that is being continued
    assert not has_ended(tmp_path)
    (tmp_path / "final" / "run.json").write_text('{"length": 100}')
    assert has_ended(tmp_path)
    (tmp_path / "final" / "run.json").unlink()
    (tmp_path / "stopped.json").write_text("{}")
    assert has_ended(tmp_path)


def follow(run: Path, *arguments: str) -> subprocess.Popen:
    command = ["reward.audit", "--run", str(run), "--follow", "--every", "0.2", *arguments]
    environment = {**os.environ, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    return start_module(*command, stdout=subprocess.PIPE, env=environment)


def read_until(process: subprocess.Popen, text: str) -> None:
    assert process.stdout is not None
    assert any(text in line for line in process.stdout)


def test_following_sees_the_alarm_come_and_ends_with_the_run(tmp_path):
    run = tmp_path / "run"
    log = RolloutLog(run / FOLDER)
    for rollout in [*healthy_run(steps=10), *window(bad_keywords, range(11, 21))]:
        log.append(rollout)
    process = follow(run)
    try:
        read_until(process, "ALARM keyword_stuffing")
        (run / "stopped.json").write_text("{}")
        read_until(process, "steps 1-10 against 11-20")
        assert process.wait(timeout=60) == 1
    finally:
        process.kill()


def test_following_ends_on_an_interrupt(tmp_path):
    process = follow(run_of(tmp_path, [*healthy_run(steps=10), *window(bad_keywords, range(11, 21))]))
    try:
        read_until(process, "alarm(s)")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
    finally:
        process.kill()


def test_gated_examples_say_why():
    alarm = raised(bad_gates)["gate_rate"]
    assert "template_leak <think>" in alarm.examples[0].note and "template_leak" in alarm.advice
    assert isinstance(bad_gates(1, 0, 1).outcome, Gated) and PRODUCTS[1] in good_rewrite(1)
