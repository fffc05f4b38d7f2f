"""What is made of a language model's text: no numbering, no more than was asked for."""

from __future__ import annotations

import re

# "1." but not the beginning of "1.5 克".
_NUMBERING = re.compile(
    r"^\s*(?:[-*•·]\s*|[(（]?\d{1,2}[)）、:：]\s*|\d{1,2}[.．](?!\d)\s*|(?:Q|问题?)\d{0,2}\s*[:：.]\s*)+"
)
_QUOTES = "\"'“”‘’「」"
_SENTENCE_END = re.compile(r"[。！？!?；;]|\.(?!\d)")
_CLAUSE_END = re.compile(r"[，,、：:]")
_QUESTION_LENGTH = 200


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
