"""A completion into typed lines. Total: any text gives an `Expansion`, nothing raises. Pure, linear in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from plain_text.thinking import without_thinking
from reward.records.expansion import KINDS, Line, LineKind

__all__ = ["KINDS", "Expansion", "Line", "LineKind", "parse"]

_LINE = re.compile(r"(lex|vec|hyde):(.*)", re.DOTALL)
# <|im_end|>, <｜end▁of▁sentence｜>, </s>, <eos>, <start_of_turn>, [INST], <<SYS>>; a line with a role alone.
_TEMPLATE = re.compile(
    r"<\s*[|｜][^<>|｜\n]{1,40}[|｜]\s*>|<[|｜](?:im_|endof|begin|end|start|eo[ts]|system|user|assistant)"
    r"|</?s>|<(?:bos|eos|pad|unk)>|</?(?:start|end)_of_(?:turn|text)>|\[/?INST\]|<</?SYS>>"
    r"|^[ \t]*(?:assistant|user|system)[ \t]*:?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: no service can be sent one
_EMPTY_THINKING = re.compile(r"\s*<think>\s*</think>\s*")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a completion holds.

    Args:
        lines: the typed lines, in their order.
        invalid: every other line that is not blank, as it was written: without a kind, or with a kind and no text.
        leaked: the completion holds a piece of a chat template.
        thought: the completion holds thinking; an empty `<think>` block is none, since chat templates write it.
    """

    lines: tuple[Line, ...] = ()
    invalid: tuple[str, ...] = ()
    leaked: bool = False
    thought: bool = False

    def of(self, kind: LineKind) -> tuple[str, ...]:
        """Return the texts of one kind, in their order."""
        return tuple(line.text for line in self.lines if line.kind == kind)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the invalid lines that begin with no kind; the others have a kind and no text."""
        return tuple(line for line in self.invalid if not _LINE.match(line))

    @property
    def is_valid(self) -> bool:
        """Whether there is a line to search with, every line is typed, and nothing leaked."""
        return bool(self.lines) and not self.invalid and not self.leaked

    def to_text(self) -> str:
        """Return the typed lines as a policy writes them."""
        return "\n".join(f"{line.kind}: {line.text}" for line in self.lines)


def parse(text: str) -> Expansion:
    """Parse a completion, line by line.

    A typed line is `lex:`, `vec:` or `hyde:` in lower case with an ASCII colon, then text; blanks around it do not
    count. Every line break of Unicode ends a line. Thinking is taken out first. A lone surrogate becomes U+FFFD.

    Example:
        >>> parse("lex: redis cache node\\nhello")
        Expansion(lines=(Line(kind='lex', text='redis cache node'),), invalid=('hello',), leaked=False, thought=False)
    """
    text = _SURROGATE.sub("\ufffd", text)
    bare = _EMPTY_THINKING.sub("\n", text, count=1) if "<think>" in text else text
    answer = without_thinking(bare)
    lines: list[Line] = []
    invalid: list[str] = []
    for written in answer.splitlines():
        line = written.strip()
        if not line:
            continue
        typed = _LINE.fullmatch(line)
        if typed and (said := typed[2].strip()):
            lines.append(Line(_kind(typed[1]), said))
        else:
            invalid.append(line)
    return Expansion(tuple(lines), tuple(invalid), bool(_TEMPLATE.search(answer)), answer != bare)


def _kind(name: str) -> LineKind:
    return next(kind for kind in KINDS if kind == name)
