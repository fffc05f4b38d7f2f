"""One question of a gold, red-team, dev or test file: `{"question", "answer", "think", "category", …}` or messages.

Names differ from file to file, so several are known for each field. A row that cannot be used is named with its reason,
never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_lines
from plain_text.thinking import TAGS, thinking_of, without_thinking
from reward.records.files import read_jsonl
from reward.settings.data import DeidentifySettings

Source = Literal["gold", "red_team", "dev", "test"]
_QUESTION = ("question", "query", "prompt", "input", "user", "问题")
_ANSWER = (
    "answer",
    "response",
    "output",
    "reference_answer",
    "gold_answer",
    "best_answer",
    "completion",
    "回答",
    "答案",
)
_CHAIN = ("think", "thinking", "chain", "reasoning", "reasoning_content", "cot", "chain_of_thought", "推理链", "推理")
_CATEGORY = ("category", "type", "scene", "department", "topic", "类别", "科室")
_RISK = ("high_risk", "risk", "risk_level", "高风险")
_ID = ("id", "sample_id", "_id")
_HISTORY = ("history", "history_context", "context", "description")
_RISKY = {"high", "true", "1", "yes", "是", "高", "高风险", "high_risk", "critical", "urgent"}
_ROLES = {"user": "user", "human": "user", "client": "user", "patient": "user", "assistant": "assistant"}
_ROLES |= {"gpt": "assistant", "doctor": "assistant", "counselor": "assistant", "system": "system"}


@dataclass(frozen=True)
class MedicalRow:
    """A question as read: normalised and de-identified.

    Args:
        row: line in the file, from 1.
        chain, answer: what the file gives as the answer to imitate; "" where it gives none.
        high_risk: the file is the red team's, or marks the row.
    """

    source: Source
    row: int
    question: str
    history: str = ""
    chain: str = ""
    answer: str = ""
    category: str = ""
    high_risk: bool = False
    name: str = ""


@dataclass(frozen=True)
class Refused:
    """A row that cannot be used, and why."""

    file: str
    row: int
    reason: str


def read_rows(path: Path, source: Source, deidentify: DeidentifySettings) -> Iterator[MedicalRow | Refused]:
    """Yield what each line of a JSONL file holds.

    Raises:
        BadInput: the file is missing or no text, or a line is not a JSON object.
    """
    for number, fields in read_jsonl(path):
        try:
            yield _row(fields, source, number, deidentify)
        except ValueError as problem:
            yield Refused(path.name, number, str(problem))


def _row(fields: Mapping[str, Any], source: Source, number: int, deidentify: DeidentifySettings) -> MedicalRow:
    def clean(text: str) -> str:
        return deidentify_text(normalise_lines(text), deidentify)[0].strip()

    turns = _turns(fields)
    if turns:
        question, history, answer = _of_turns(turns)
    else:
        instruction = _text(fields, ("instruction",))
        question, history, answer = _text(fields, _QUESTION), _text(fields, _HISTORY), _text(fields, _ANSWER)
        question = "\n".join(part for part in (instruction, question) if part)
    chain, answer = _split(_text(fields, _CHAIN), answer)
    question = clean(question)
    if not question:
        raise ValueError(f"question is missing (known names: {', '.join(_QUESTION)}, messages)")
    return MedicalRow(
        source=source,
        row=number,
        question=question,
        history=clean(history),
        chain=clean(chain),
        answer=clean(answer),
        category=_text(fields, _CATEGORY),
        high_risk=source == "red_team" or _is_risky(fields),
        name=_text(fields, _ID),
    )


def _split(chain: str, answer: str) -> tuple[str, str]:
    """Return chain and answer: the chain out of its own field, else out of the tags in the answer.

    Raises:
        ValueError: both are there and differ.
    """
    inside, field = thinking_of(answer), re.sub(TAGS, "", chain).strip()
    if field and inside and field.split() != inside.split():
        raise ValueError("the answer's <think> and the field of the chain differ")
    return field or inside, without_thinking(answer)


def _turns(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (role, text) of each turn of a chat; empty where the row is none."""
    for name in ("messages", "conversations", "turns"):
        turns = fields.get(name)
        if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
            found = []
            for turn in turns:
                role = str(turn.get("role") or turn.get("from") or "")
                text = turn.get("content", turn.get("value", turn.get("text")))
                if role not in _ROLES or not isinstance(text, str):
                    raise ValueError(f"{name}: expected turns of a role (user, assistant) and a text")
                found.append((_ROLES[role], text))
            return found
    return []


def _of_turns(turns: Sequence[tuple[str, str]]) -> tuple[str, str, str]:
    """Return (question, history, answer): the last user turn, what went before it, and the answer after it."""
    spoken = [(role, text) for role, text in turns if role != "system"]
    last = max((place for place, (role, _) in enumerate(spoken) if role == "user"), default=None)
    if last is None:
        raise ValueError("messages hold no user turn")
    speaker = {"user": "用户", "assistant": "助手"}
    history = "\n".join(f"{speaker[role]}: {without_thinking(text)}" for role, text in spoken[:last])
    answers = [text for role, text in spoken[last + 1 :] if role == "assistant"]
    return spoken[last][1], history, answers[0] if answers else ""


def _text(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return "\n".join(value).strip()
        if isinstance(value, int) and not isinstance(value, bool) and name in _ID:
            return str(value)
    return ""


def _is_risky(fields: Mapping[str, Any]) -> bool:
    return any(str(fields[name]).strip().casefold() in _RISKY for name in _RISK if fields.get(name) is not None)
