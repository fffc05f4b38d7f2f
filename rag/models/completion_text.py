"""What is made of a language model's text: no thinking aloud, no numbering, no more than was asked for."""

from __future__ import annotations

import re

_OPENS = ("<think>", "<thinking>", "<seed:think>", "◁think▷")
_OPEN = re.compile("|".join(_OPENS), re.IGNORECASE)
_CLOSE = re.compile("</think>|</thinking>|</seed:think>|◁/think▷", re.IGNORECASE)
# "1." but not the beginning of "1.5 克".
_NUMBERING = re.compile(
    r"^\s*(?:[-*•·]\s*|[(（]?\d{1,2}[)）、:：]\s*|\d{1,2}[.．](?!\d)\s*|(?:Q|问题?)\d{0,2}\s*[:：.]\s*)+"
)
_QUOTES = "\"'“”‘’「」"
_SENTENCE_END = re.compile(r"[。！？!?；;]|\.(?!\d)")
_CLAUSE_END = re.compile(r"[，,、：:]")
_QUESTION_LENGTH = 200


def without_thinking(text: str) -> str:
    """Remove the thinking that servers without a reasoning parser leave at the beginning. A block that is never closed
    is all thinking. Templates that write the opening themselves leave only `</think>`: what precedes it is thinking."""
    while True:
        opened = _OPEN.match(text := text.lstrip())
        closed = _CLOSE.search(text)
        if closed is None:
            return "" if opened else text
        text = text[closed.end() :]


def thinks_unopened(text: str) -> bool:
    """Return whether the thinking ends in the text and does not begin there."""
    return _CLOSE.search(text) is not None and not _OPEN.match(text.lstrip())


class Unthinking:
    """`without_thinking` of a text that comes in pieces. `unopened`: the text begins with thinking that nothing opens;
    without it such thinking is given before its end shows what it is."""

    def __init__(self, unopened: bool = False) -> None:
        self._unopened = unopened
        self._held, self._decided = "", False

    def feed(self, piece: str) -> str:
        """Return what of the text so far is not thinking and was not given yet."""
        if self._decided:
            return piece
        self._held = (self._held + piece).lstrip()
        begun = self._held[: max(map(len, _OPENS))].lower()
        if self._unopened or _OPEN.match(self._held):
            if _CLOSE.search(self._held) is None:
                return ""
            self._held = without_thinking(self._held)
        elif any(opening.startswith(begun) for opening in _OPENS):
            return ""
        self._decided = True
        return self._held

    def finish(self) -> str:
        """Return what was held for thinking and was none, at the end of the text."""
        return "" if self._decided else without_thinking(self._held)


def cut_at_sentence(text: str, length: int) -> str:
    """Return at most `length` characters of `text`: up to the last sentence's end in its second half, else the last
    clause's, else cut as it comes."""
    if len(text) <= length:
        return text
    text = text[:length]
    for ends in (_SENTENCE_END, _CLAUSE_END):
        places = [match.end() for match in ends.finditer(text) if match.end() >= length // 2]
        if places:
            return text[: places[-1]].rstrip("，,、：:；; ")
    return text


def split_questions(text: str, n: int) -> list[str]:
    """Return the first `n` different lines without numbering, bullets and quotation marks. No question: a line that
    announces others by a colon, a line longer than 200 characters, a Markdown fence."""
    questions: dict[str, None] = {}
    for line in text.splitlines():
        question = _NUMBERING.sub("", line).strip().strip(_QUOTES).strip()
        announces = question.endswith((":", "：")) or question.startswith("```")
        if question and not announces and len(question) <= _QUESTION_LENGTH:
            questions.setdefault(question)
    return list(questions)[:n]


def says_unknown(text: str) -> bool:
    """Return whether the first clause is 未知 and nothing more."""
    return re.split(r"[\s。.！!，,；;：:]", text.strip().strip(_QUOTES), maxsplit=1)[0].strip(_QUOTES) == "未知"
