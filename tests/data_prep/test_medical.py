"""`python -m data_prep.build_medical`: strata, the high-risk share, what is held out, and files that cannot be used."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.build_medical import main
from data_prep.medical.rows import MedicalRow, Refused, read_rows
from data_prep.medical.sampling import draw_prompts
from data_prep.questions.split import bare
from reward.records.files import read_jsonl
from reward.records.sample import Sample
from reward.settings.data import DeidentifySettings

SYMPTOMS = ("流鼻涕", "嗓子痒", "口腔溃疡", "便秘", "失眠", "皮肤干", "腰酸", "打喷嚏", "眼睛涩", "胃胀")
PLACES = ("早上", "晚上", "饭后", "运动后", "上班时", "下雨天", "换季时", "旅行中")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


def gold(number: int, **changes) -> dict:
    question = f"{PLACES[number % 8]}{SYMPTOMS[number // 8]}怎么办"
    row = {"question": question, "think": "没有危险信号。", "answer": f"注意休息{number}", "category": "日常"}
    return row | changes


def red(number: int) -> dict:
    return {"question": f"{PLACES[number % 8]}突然{SYMPTOMS[number // 8]}还昏倒{number}次", "category": "急症"}


def files(folder: Path, golds=60, reds=60) -> dict[str, Path]:
    return {
        "gold": write(folder / "gold_set.jsonl", [gold(n) for n in range(golds)]),
        "red": write(folder / "red_team.jsonl", [red(n) for n in range(reds)]),
    }


def build(folder: Path, out: str = "out", **options) -> int:
    given = files(folder) | options
    return main([*(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), f"--out={folder / out}"])


def prompts(out: Path) -> list[Sample]:
    return [Sample.model_validate(line) for _, line in read_jsonl(out / "training_prompts.jsonl")]


def test_prompts_are_high_risk_enough_and_nothing_held_out_trains(tmp_path, capsys):
    test = write(tmp_path / "test.jsonl", [{"query": gold(n)["question"]} for n in range(70, 80)])
    assert build(tmp_path, test=test) == 0
    out = tmp_path / "out"
    trained = prompts(out)
    assert sum("high_risk" in sample.metadata.slices for sample in trained) >= 0.4 * len(trained)
    assert not any(sample.rewritten_query for sample in trained)
    held = {
        bare(line["original_query"])
        for name in ("dev", "test", "gold", "red")
        for _, line in read_jsonl(out / f"eval_{name}.jsonl")
    }
    assert len(held) > 20 and not held & {bare(sample.original_query) for sample in trained}
    rows = pq.read_table(out / "rl_train.parquet").to_pylist()
    assert [Sample.from_extra_info(row["extra_info"]) for row in rows] == trained
    assert "at least 40% is required" in (out / "DATA_CARD.md").read_text(encoding="utf-8")
    sft = pq.read_table(out / "sft_train.parquet").to_pylist()
    assert all(row["messages"][-1]["content"].startswith("<think>\n没有危险信号。\n</think>\n\n注意") for row in sft)
    assert not held & {bare(row["messages"][1]["content"]) for row in sft}

    # The same command has nothing to do; the same files give the same bytes elsewhere.
    capsys.readouterr()
    assert build(tmp_path, test=test) == 0 and "up to date" in capsys.readouterr().out
    assert build(tmp_path, "again", test=test) == 0
    assert (tmp_path / "again/training_prompts.jsonl").read_bytes() == (out / "training_prompts.jsonl").read_bytes()


def test_everyday_prompts_are_left_out_and_counted_where_the_red_team_is_small(tmp_path, capsys):
    small = write(tmp_path / "few.jsonl", [red(n) for n in range(24)])
    assert build(tmp_path, red=small) == 0
    trained = prompts(tmp_path / "out")
    risky = sum("high_risk" in sample.metadata.slices for sample in trained)
    assert risky / len(trained) >= 0.4 and len(trained) < 40
    assert "left out to keep the share: 0" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"think": ""}, "row 1: has no chain"),
        ({"think": None, "answer": "注意休息"}, "row 1: has no chain"),
        ({"think": "<think></think>"}, "row 1: has no chain"),
        ({"think": "", "answer": "<think>想到一半，没有写完"}, "row 1: has no chain"),
        ({"question": " "}, "holds no question that can be read"),
        ({"question": 7}, "holds no question that can be read"),
    ],
)
def test_a_gold_file_without_chains_or_questions_is_one_line(tmp_path, capsys, changes, why):
    rows = [gold(n) | changes for n in range(20)]
    assert build(tmp_path, gold=write(tmp_path / "bad.jsonl", rows)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"bad.jsonl: {why}" in error and not (tmp_path / "out").exists()


def test_gold_rows_without_a_chain_are_counted_and_still_asked(tmp_path, capsys):
    rows = [gold(n) if n % 2 else gold(n, think="") for n in range(60)]
    assert build(tmp_path, gold=write(tmp_path / "half.jsonl", rows)) == 0
    assert "gold rows without a chain or an answer: 30" in capsys.readouterr().out


def test_a_chain_that_never_closes_is_counted(tmp_path, capsys):
    rows = [gold(n) if n % 2 else gold(n, think="", answer="<think>没有写完") for n in range(60)]
    assert build(tmp_path, gold=write(tmp_path / "half.jsonl", rows)) == 0
    assert "gold rows without a chain or an answer: 30" in capsys.readouterr().out


def test_rows_that_cannot_be_used_are_named(tmp_path):
    rows = [gold(n) for n in range(60)] + [{"id": 5}, {"messages": [{"role": "system", "content": "x"}]}, gold(3)]
    assert build(tmp_path, gold=write(tmp_path / "g.jsonl", rows)) == 0
    refused = {line["row"]: line["reason"] for _, line in read_jsonl(tmp_path / "out/quarantine.jsonl")}
    assert refused[61].startswith("question is missing") and refused[62] == "messages hold no user turn"
    assert refused[63] == "the same question is in g.jsonl row 4"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"high_risk_share": 1.5}, "outside [0, 1)"),
        ({"held_out": -1}, "outside [0, 1)"),
        ({"red": "missing.jsonl"}, "missing.jsonl: no such file"),
        ({"tenant": "nobody"}, "known tenants"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(tmp_path, capsys, options, why):
    assert build(tmp_path, **options) == 2
    assert why in capsys.readouterr().err


def read(folder: Path, *rows: dict) -> list[MedicalRow | Refused]:
    return list(read_rows(write(folder / "r.jsonl", list(rows)), "gold", DeidentifySettings()))


@pytest.mark.parametrize(
    "row",
    [
        {"question": "头痛？", "think": "想一想", "answer": "请就医"},
        {"query": "头痛？", "chain": "想一想", "response": "请就医"},
        {"instruction": "头痛？", "input": "", "output": "<think>想一想</think>\n请就医"},
        {"prompt": "头痛？", "reasoning_content": "想一想", "completion": "请就医"},
        {"问题": "头痛？", "推理": "想一想", "回答": "请就医"},
        {"messages": [{"role": "user", "content": "头痛？"}, {"role": "gpt", "content": "想一想</think>请就医"}]},
        {"conversations": [{"from": "human", "value": "头痛？"}, {"from": "gpt", "value": "想一想</think>请就医"}]},
        {"question": "头痛？", "think": ["想一想"], "answer": "请就医"},
        {"question": "头痛？", "think": "想一想", "answer": "<think> 想一想 </think>请就医"},
    ],
)  # fmt: skip
def test_the_same_row_in_other_shapes(tmp_path, row):
    [found] = read(tmp_path, row)
    assert (found.question, found.chain, found.answer) == ("头痛？", "想一想", "请就医")


@pytest.mark.parametrize(
    ("answer", "chain", "told"),
    [
        ("<think>一</think>请<think>二</think>就医", "一\n二", "请就医"),
        ("<think>外<think>内</think>外</think>请就医", "外 内 外", "请就医"),
        ("<think></think><think>一</think>请就医", "一", "请就医"),
        ("<think>一", "一", ""),
        ("<think>一</think>请<think>二", "一\n二", "请"),
    ],
)
def test_what_is_thought_and_what_is_answered_never_mix(tmp_path, answer, chain, told):
    [found] = read(tmp_path, {"question": "头痛？", "answer": answer})
    assert (found.chain, found.answer) == (chain, told)


def test_two_chains_that_differ_are_named(tmp_path):
    [found] = read(tmp_path, {"question": "头痛？", "think": "甲", "answer": "<think>乙</think>请就医"})
    assert isinstance(found, Refused) and "differ" in found.reason


def test_a_dialogue_keeps_its_history_and_names_nobody(tmp_path):
    turns = [
        {"role": "system", "content": "你是助手"},
        {"role": "user", "content": "我是李医生的病人，电话13812345678"},
        {"role": "assistant", "content": "<think>x</think>您说"},
        {"role": "user", "content": "头痛？"},
    ]
    [found] = read(tmp_path, {"messages": turns})
    assert found.question == "头痛？" and "13812345678" not in found.history and "助手: 您说" in found.history


@pytest.mark.parametrize(("value", "risky"), [("high", True), (True, True), ("高", True), ("low", False), (0, False)])
def test_marked_rows_are_high_risk(tmp_path, value, risky):
    assert read(tmp_path, gold(0, risk_level=value))[0].high_risk is risky


def test_every_stratum_is_drawn_from():
    rows = [MedicalRow("red_team", n, f"q{n}", category=f"c{n % 3}", high_risk=True) for n in range(40)]
    rows += [MedicalRow("gold", n, f"g{n}", category="rare" if n == 0 else "often") for n in range(60)]
    draw = draw_prompts(rows, 20, 0.4, 0)
    assert len(draw.rows) == 20 and draw.high_risk_share >= 0.4
    assert {row.category for row in draw.rows} == {"c0", "c1", "c2", "rare", "often"}
    assert sum(draw.left_out.values()) == 80
    assert draw_prompts(rows, 20, 0.4, 0) == draw


def test_without_high_risk_rows_nothing_is_drawn():
    assert not draw_prompts([MedicalRow("gold", n, f"g{n}") for n in range(9)], 9, 0.4, 0).rows
