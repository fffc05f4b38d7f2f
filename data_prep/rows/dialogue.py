"""A dialogue as logs and cells record it → lines of `用户: …` and `助手: …`: the one reader of both."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.rows.missing import is_missing
from plain_text.thinking import without_thinking

USER, ASSISTANT = "用户", "助手"
# Who speaks, folded.
SPEAKERS = {
    **dict.fromkeys(("user", "human", "customer", "client", "buyer", "visitor", "guest", "patient"), USER),
    **dict.fromkeys(("用户", "客户", "顾客", "买家", "访客", "患者", "消费者", "会员", "提问者"), USER),
    **dict.fromkeys(("咨询者", "咨询人", "提问人", "member", "consumer"), USER),
    **dict.fromkeys(("用戶", "客戶", "顧客", "買家"), USER),
    **dict.fromkeys(("assistant", "ai", "bot", "agent", "model", "gpt", "chatgpt", "robot", "chatbot"), ASSISTANT),
    **dict.fromkeys(("seller", "staff", "service", "kefu", "operator", "advisor", "doctor"), ASSISTANT),
    **dict.fromkeys(("助手", "客服", "坐席", "座席", "机器人", "卖家", "商家", "店员", "顾问", "医生"), ASSISTANT),
    **dict.fromkeys(("ai客服", "ai助手", "机器人客服", "药师", "营养师", "专家", "回答者"), ASSISTANT),
    **dict.fromkeys(("representative", "merchant", "expert", "pharmacist", "support"), ASSISTANT),
    **dict.fromkeys(("助理", "小助手", "人工客服", "智能客服", "在线客服", "機器人", "賣家"), ASSISTANT),
}
# Their turns are no part of a dialogue.
_NO_SPEAKERS = frozenset(("system", "tool", "function", "developer", "系统", "工具", "系統"))
_ROLES = ("role", "from", "speaker", "sender", "author", "sender_type", "角色", "发言人", "说话人")
_CONTENTS = ("content", "value", "text", "message", "parts", "msg", "内容", "消息")
_PAIRS = (
    *(("question", "answer"), ("query", "response"), ("query", "answer"), ("instruction", "output"), ("q", "a")),
    *(("input", "output"), ("prompt", "completion"), ("prompt", "response"), ("问题", "回答"), ("问", "答")),
)
_KINDS_OF_TURN = frozenset(("human", "ai", "user", "assistant", "system", "tool"))  # LangChain's `type`
_LISTS = ("messages", "history", "turns", "conversations", "conversation", "dialogue", "dialog")
_LINE = re.compile(r"\s*([^\s:：]{1,20})\s*[:：]\s*")  # "用户: 在吗"
_LITERAL_LIMIT = 1 << 20  # characters; Python's own parser needs hundreds of bytes for each


@dataclass
class Dialogue:
    """`text` is "" for no turn; `passed_over` names what is no line of it, such as turns of an unknown speaker."""

    text: str = ""
    passed_over: list[str] = field(default_factory=list)


def read_dialogue(value: object) -> Dialogue:
    """Read a list of turns, as it is or as JSON or a Python literal in a text; any other text is the dialogue itself,
    and so is a whole number.

    A turn is {role, content} or names these two as ShareGPT, LangChain and others do, or {speaker: words}, or a line
    "用户: 在吗", or a pair: [question, answer], {query, response}. Content that is missing (a tool's call) is no turn.
    The texts of parts are joined. A turn of `system` or `tool` is no part of a dialogue, nor is what a reasoning
    assistant thinks.

    Raises:
        ValueError: a list or an object that holds no turns.
    """
    if isinstance(value, str):
        parsed = unpacked(value)
        if not isinstance(parsed, list | dict):
            return Dialogue("" if is_missing(value) else value)
        value = parsed
    if is_missing(value):
        return Dialogue()
    if isinstance(value, int) and not isinstance(value, bool):
        return Dialogue(str(value))
    found = Dialogue()
    lines: list[str] = []
    for turn in _turns(value):
        for role, content in _said(turn):
            speaker = role.strip().casefold()
            text = _text(content, found.passed_over)
            if SPEAKERS.get(speaker) == ASSISTANT and (told := without_thinking(text)) != text:
                found.passed_over.append("<think> stripped")
                text = told
            if speaker not in SPEAKERS:
                if text or speaker not in _NO_SPEAKERS:
                    kind = "turn that is no dialogue" if speaker in _NO_SPEAKERS else "turn of an unknown speaker"
                    found.passed_over.append(f"{kind} ({role.strip()[:20]})")
            elif text:
                lines.append(f"{SPEAKERS[speaker]}: {text}")
    found.text = "\n".join(lines)
    return found


def turns_in(value: object) -> list[Any]:
    """Return the list of turns, each of a known role, that `value` is or that is packed into it; none for others."""
    turns = unpacked(value) if isinstance(value, str) else value
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        return []
    try:
        roles = [role.strip().casefold() for turn in turns for role, _ in _said(turn)]
    except ValueError:
        return []
    return turns if SPEAKERS.keys() | _NO_SPEAKERS >= {*roles} else []


def asked_last(turns: Sequence[Any]) -> str:
    """Return what the user says in the last turn; "" where another speaks last, or what is said is no text."""
    said = _said(turns[-1])
    role, content = said[-1]
    is_user = len(said) == 1 and SPEAKERS.get(role.strip().casefold()) == USER
    try:
        return _text(content, []) if is_user else ""
    except ValueError:  # `read_dialogue` refuses it
        return ""


def unpacked(text: str) -> object:
    """Parse the list, object or packed text that `text` spells as JSON (once, twice, …) or as a Python literal; None
    where it spells none."""
    value: object = text
    for _ in range(5):
        if not isinstance(value, str):
            return value
        inner = value.strip("\ufeff \t\r\n\0")
        if not inner.startswith(("{", "[", '"', "(")):
            return None if value is text else value
        try:
            value = parse_json(inner)
        except (ValueError, RecursionError):
            literal = _literal(inner)
            return literal if isinstance(literal, list | dict) else None if value is text else value
    return value


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with raw control characters too; of a key that is twice in an object the last counts.

    Raises:
        ValueError, RecursionError: as `json.loads` does.
    """
    return json.loads(text, strict=False)


def _literal(text: str) -> object:
    if len(text) > _LITERAL_LIMIT or not text.startswith(("[", "{", "(")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return list(value) if isinstance(value, tuple) else value


def _turns(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        for name in _LISTS:
            if isinstance(value.get(name), list):
                return list(value[name])
            if isinstance(value.get(name), dict):
                return _turns(value[name])
        if any(name in value for name in _ROLES) and any(name in value for name in _CONTENTS):
            return [value]
    raise ValueError("expected a text or a list of {role, content}")


def _said(turn: object) -> list[tuple[str, object]]:
    """Return who said what in one turn."""
    if isinstance(turn, str) and isinstance(inner := unpacked(turn), dict):
        turn = inner
    if isinstance(turn, Mapping):
        named = {str(key).strip().casefold(): value for key, value in turn.items()}
        role = next((named[name] for name in _ROLES if isinstance(named.get(name), str)), None)
        if role is not None and any(name in named for name in (*_CONTENTS, "tool_calls", "function_call")):
            return [(role, next((named[name] for name in _CONTENTS if not is_missing(named.get(name))), None))]
        kind = named.get("type")
        if isinstance(kind, str) and kind.casefold() in _KINDS_OF_TURN:
            within = named.get("data")
            said = {**within, **named} if isinstance(within, Mapping) else named
            return [(kind, next((said[name] for name in _CONTENTS if not is_missing(said.get(name))), None))]
        for question, answer in _PAIRS:
            if question in named and answer in named:
                return [("user", named[question]), ("assistant", named[answer])]
        spoken = [(name, words) for name, words in named.items() if name in SPEAKERS]
        if spoken and len(spoken) == len(named):
            return spoken
    line = _LINE.match(turn) if isinstance(turn, str) else None
    if line and line[1].casefold() in SPEAKERS.keys() | _NO_SPEAKERS:
        return [(line[1], str(turn)[line.end() :])]
    if isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(words, str | None) for words in turn):
        return [("user", turn[0]), ("assistant", turn[1])]
    raise ValueError("expected a text or a list of {role, content}")


def _text(content: object, passed_over: list[str]) -> str:
    """Return what was said on one line; parts of a message that are no text are named."""
    if isinstance(content, str) and content.lstrip().startswith(("[{", "{")):
        parts = unpacked(content)  # a message's parts, packed
        of_text = [isinstance(part, Mapping) and "text" in part for part in parts] if isinstance(parts, list) else []
        content = parts if any(of_text) else content
    if isinstance(content, Mapping) and any(name in content for name in ("text", "content", "parts")):
        content = next(content[name] for name in ("parts", "text", "content") if name in content)
    if is_missing(content):
        return ""
    if isinstance(content, list | tuple):
        texts = []
        for part in content:
            words = part.get("text", part.get("content")) if isinstance(part, Mapping) else part
            if isinstance(words, str):
                texts.append(words)
            elif not is_missing(part):
                kind = part.get("type", "") if isinstance(part, Mapping) else type(part).__name__
                passed_over.append(f"part of a turn that is no text ({str(kind)[:20]})")
        content = " ".join(texts)
    if isinstance(content, bool) or not isinstance(content, str | int | float):
        raise ValueError("expected a text or a list of {role, content}")
    return " ".join(str(content).split())
