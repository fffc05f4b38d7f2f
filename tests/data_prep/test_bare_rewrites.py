"""What a deployed model prints around its rewrite is not imitated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep import build_rl, build_sft
from data_prep.rows.bare_rewrites import KEPT, SEVERAL, bare_rewrite

Q, R = "鱼油怎么吃", "鱼油 服用方法"

DRESSED = (
    *(f"改写：{R}", f"改写后的查询: {R}", f"改写后的问题为：{R}", f"查询改写结果：\n{R}", f"重寫後的查詢：{R}"),
    *(f"Rewritten query: {R}", f"rewritten_query: {R}", f"Query: {R}", f"Sure! Here's the rewritten query: {R}"),
    *(
        f"好的，改写如下：\n{R}",
        f"**改写后的查询：** {R}",
        f"### 改写后的查询\n{R}",
        f"【改写】：{R}",
        f"改写（简洁版）：{R}",
    ),
    *(f"“{R}”", f'"{R}"', f"「{R}」", f"'{R}'", f"**{R}**", f"***{R}***", f"`{R}`", f"```text\n{R}\n```"),
    *(
        f"{R}\n\n解释：用户问的是用法",
        f"{R}\n（注：补充了）",
        f"{R}（注：补充了）",
        f"{R}\n\nThis rewrite adds a word.",
    ),
    *(
        f"以下是改写后的查询：\n\n“{R}”\n\n改写理由：更清楚",
        f"原始查询：{Q}\n改写后的查询：{R}",
        f"改写后的查询是“{R}”",
    ),
    *(f"{R}<|im_end|>", f"{R}</s>", f"<rewrite>{R}</rewrite>", f"- 改写：{R}", f"检索词：{R}", f"助手：{R}"),
)
AS_THEY_ARE = (
    R,
    "鱼油：服用方法",
    "查询余额：方法",
    "“鱼油” 和 “钙片”",
    '"鱼油" "钙片"',
    "改写论文的方法",
    "注：鱼油",
    "《伤寒论》",
)


@pytest.mark.parametrize("text", DRESSED)
def test_what_is_around_a_rewrite_is_stripped_and_named(text: str) -> None:
    bare, said = bare_rewrite(text, Q, "用户: 有鱼油吗\n助手: 有的")
    assert bare == R and said and all("stripped" in what for what in said)


@pytest.mark.parametrize("text", AS_THEY_ARE)
def test_a_plain_rewrite_stays(text: str) -> None:
    assert bare_rewrite(text, Q) == (text, [])


@pytest.mark.parametrize(
    ("question", "dialogue", "rewrite"),
    [
        ("论文改写：怎么降重", "", "改写：论文降重方法"),
        ("“鱼油”是什么", "", "“鱼油”"),
        ("Query: SELECT 1", "", "Query: SELECT 1 MySQL"),
        ("那怎么做", "用户: 作业题 改写：我吃饭了", "改写：我吃饭了 做法"),
    ],
)
def test_a_label_of_the_question_stays_and_is_named(question: str, dialogue: str, rewrite: str) -> None:
    assert bare_rewrite(rewrite, question, dialogue) == (rewrite, [KEPT])


def test_several_rewrites_stay_and_are_named() -> None:
    for text in ("查询：鱼油\n查询：钙片", "鱼油 用法\n\n钙片 用法"):
        assert bare_rewrite(text, Q) == (text, [SEVERAL])


@pytest.mark.parametrize("text", ["改写：", "改写后的查询：\nNone", "<|im_end|>"])
def test_a_label_without_a_rewrite_is_none(text: str) -> None:
    assert bare_rewrite(text, Q)[0] == ""


def test_an_endless_text_costs_no_time() -> None:
    assert bare_rewrite(" \n" * 100_000, Q) == (" \n" * 100_000, [])


def test_the_trainer_imitates_the_rewrite_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topics = ("鱼油", "钙片", "益生菌", "叶黄素", "褪黑素", "蛋白粉")
    log = tmp_path / "service.log"
    lines = [
        {"payload": {"query": f"{topic}到底怎么吃"}, "response": {"rewritten_query": f"改写后的查询：“{topic} 用法”"}}
        for topic in topics
    ]
    log.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    for build, train in ((build_sft, "train_latest.jsonl"), (build_rl, "rl_train.jsonl")):
        out = tmp_path / build.__name__
        options = ["--input", str(log), "--tenant", "fivedoctors", "--out", str(out), "--split", "train"]
        assert build.main(options + ["--keep-unscored", "--no-augment"] * (build is build_sft)) == 0
        said = capsys.readouterr().out
        assert "rewritten_query: label stripped: 6 (改写后的查询：), first in row 1" in said
        assert "rewritten_query: quotes stripped: 6" in said
        written = (out / train).read_text(encoding="utf-8")
        assert all(f"{topic} 用法" in written for topic in topics) and "改写后的查询" not in written
