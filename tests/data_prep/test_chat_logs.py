"""Logs that record a chat as a list of turns under `messages` or `context`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.readers.log_file import read_logs
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

Q, R = "鱼油怎么吃", "鱼油 服用方法"
BEFORE = [{"role": "user", "content": "有鱼油吗"}, {"role": "assistant", "content": "有的"}]
TURNS = [*BEFORE, {"role": "user", "content": Q}]
HISTORY = "用户: 有鱼油吗\n助手: 有的"
TOLD = {"rewritten_query": R}
CHAT = {"choices": [{"message": {"role": "assistant", "content": R}}]}
ASSUMED = "original_query: the last turn of the user, assumed"


def read(path: Path, line: object, **paths: list[str]) -> tuple[dict[str, Any], str]:
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    notes: list[str] = []
    batches = read_logs(path, SourceSettings(log_paths=paths), ("original_query", "rewritten_query"), notes)
    (row,) = [row for batch in batches for row in batch.to_pylist()]
    return row, "\n".join(notes)


LINES: dict[str, dict[str, Any]] = {
    "turns before the query": {"query": Q, "messages": BEFORE, "response": TOLD},
    "the query is the last turn too": {"query": Q, "messages": TURNS, "response": TOLD},
    "a context of turns": {"payload": {"query": Q, "context": BEFORE}, "response": TOLD},
    "packed": {"payload": {"query": Q, "messages": json.dumps(BEFORE)}, "response": TOLD},
    "a recorded history counts first": {"query": Q, "history": BEFORE, "messages": TURNS[2:], "response": TOLD},
}


@pytest.mark.parametrize("name", LINES)
def test_a_list_of_turns_is_the_history(tmp_path: Path, name: str) -> None:
    row, notes = read(tmp_path / "a.log", LINES[name])
    assert (row["original_query"], row["rewritten_query"], row["history_context"]) == (Q, R, HISTORY)
    assert not row["refused"] and not row["remarks"] and "context" not in notes


@pytest.mark.parametrize("key", ["messages", "context"])
def test_without_a_query_the_users_last_turn_is_assumed_to_be_it(tmp_path: Path, key: str) -> None:
    row, _ = read(tmp_path / "a.log", {"request": {key: TURNS}, "response": TOLD})
    assert (row["original_query"], row["history_context"]) == (Q, HISTORY) and row["source"] == "production_log"
    assert row["remarks"] == [f"{ASSUMED} ({key})"]


def test_a_dialogue_that_the_user_does_not_end_gives_no_query_and_says_so(tmp_path: Path) -> None:
    row, _ = read(tmp_path / "a.log", {"messages": BEFORE, "rewritten_query": R})
    assert "messages: the last turn is no text of the user: no query" in row["refused"]


def test_a_chats_answer_is_a_rewrite_only_where_the_tenant_says_so(tmp_path: Path) -> None:
    path = "response.choices[0].message.content"
    line = {"request": {"model": "m", "messages": TURNS}, "response": CHAT}
    with pytest.raises(BadInput, match=r"no line has rewritten_query.*choices\[0\].*data_prep.fill_baseline"):
        read(tmp_path / "a.log", line)
    row, _ = read(tmp_path / "a.log", line, rewritten_query=[path])
    assert (row["original_query"], row["rewritten_query"], row["history_context"]) == (Q, R, HISTORY)


def test_passages_under_context_are_no_dialogue(tmp_path: Path) -> None:
    row, notes = read(tmp_path / "a.log", {"query": Q, "context": ["段落一", "段落二"], "rewritten_query": R})
    assert row["history_context"] == "" and "context (a list of 2)" in notes


def test_a_last_turn_that_is_no_text_refuses_its_row_alone(tmp_path: Path) -> None:
    torn = {"messages": [{"role": "user", "content": {"a": 1}}], **TOLD}
    path = tmp_path / "a.log"
    path.write_text("\n".join(json.dumps(line) for line in (torn, {"messages": TURNS, **TOLD})), encoding="utf-8")
    rows = [row for batch in read_logs(path, SourceSettings(), ()) for row in batch.to_pylist()]
    assert rows[0]["refused"].startswith("original_query: nothing at")
    assert (rows[1]["refused"], rows[1]["original_query"]) == ("", Q)
