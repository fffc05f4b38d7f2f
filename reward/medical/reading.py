"""A text as the rules read it: folded, in sentences and clauses, with what each clause denies. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import islice

from reward.text.fold import fold
from reward.text.numbers import with_plain_numerals
from reward.text.polarity import Denial, denials, is_name_denied

Span = tuple[int, int]

_MOST = 8_000  # characters of a text that are read
_NAMES = 60  # things in one clause that are looked at
_LONGEST_SENTENCE, _LONGEST_CLAUSE = 240, 120
# Longer runs say nothing more.
_RUN = re.compile(r"(\d{20})\d+|(.{1,3}?)\2{20,}", re.DOTALL)
_DECORATION = re.compile(r"[*·•^~_`#]+")
# A blank inside Chinese separates nothing; one between sentences without a mark does.
_BLANKS = re.compile(r"(?<=[一-鿿\d]) +(?=[一-鿿])|(?<=[一-鿿]) +(?=[\d])")
_SENTENCE_END = re.compile(r"[。;!?\n]+|\.(?=\s|$)")
_CLAUSE_END = re.compile(r"[。;!?\n,]+|\.(?=\s|$)|(?:但是?|不过|然而|可是|只是)(?=[^,。;!?\n])")
# What only seems to deny: 不要犹豫, 不能不去, 并不是不需要.
_DOUBLE = re.compile(
    "不(?:要|能|可|必|用|应)?(?:再)?(?:犹豫|迟疑|拖延?|耽搁|耽误|等待|等|慌张?|惊慌|紧张|害怕|怕麻烦|侥幸|大意|掉以轻心|忽视|轻视|硬扛|强忍)"
    "|(?:别|勿|莫)(?:再)?(?:犹豫|迟疑|拖延?|耽搁|耽误|等待|等|慌张?|惊慌|紧张|害怕|侥幸|大意)"
    "|不(?:能|可|得|会|应|该)不|不可忽视|不容(?:忽视|拖延|耽误|有失)|没有(?:别的|其他)(?:办法|选择)|非(?=[^,。]{1,8}不可)"
    "|不(?:明|知道?|慎|小心|自主|自觉|省人事|由自主|停(?:地|的)?|断(?:地|的)?|仅|只|光|但|管|论|同|过)"
    "|(?:并)?不(?:是|等于|代表|意味着?|表示|认为|觉得|以为)(?:说)?(?=[^,。;]{0,6}(?:不|没|无))"
)
_ALL_DENIED = re.compile(
    r"^[^,。;!?\n]{0,14}(?:都|均|也|全|一概|通通)(?:没(?:有)?|无|未)(?:过|出现|发生)?(?=[,。;!?\s的]|$)"
)
# 没有胸痛、恶心、|晕倒: what a list denies, down to its last item.
_LISTED = re.compile(
    "(?:没有?|无|未见?|未(?:出现|诉|伴|发现)|否认|不伴有?|不)(?!精神|胃口|食欲|力气?|劲|睡意|办法|反应|意识|知觉|呼吸|心跳|脉搏|尿|原因|能|会|敢|停|断)"
    "[^,。;!?\n、]{1,8}(?:[、/][^,。;!?\n、]{1,8})*(?:[、/]|和|或者?|以?及|与|跟|(?:也|都|还)?(?:没有?|无|未见?))$"
)
_GONE = re.compile(
    r"^[^,。;!?\n]{0,3}(?:已经?|就|都|也|便|现在)*(?:完全)?(?:消失|缓解了|好了|没了|不(?:痛(?!苦)|疼|喘|吐|抽|晕|流)了?|停了|止住了?|恢复了?|退了)"
)


def readable(text: str) -> str:
    """Fold a text for reading: without decoration and blanks within Chinese, formal numerals as plain ones."""
    folded = _RUN.sub(lambda match: match[1] or match[2] * 20, _DECORATION.sub("", fold(text[:_MOST])))
    return with_plain_numerals(_BLANKS.sub("", folded))


class Reading:
    """One text, read once.

    Attributes:
        text: folded; every position is one in it.
    """

    def __init__(self, text: str):
        self.text = readable(text)
        self.sentences = _pieces(self.text, _SENTENCE_END, _LONGEST_SENTENCE)
        self.clauses = _pieces(self.text, _CLAUSE_END, _LONGEST_CLAUSE)
        self._sentence_starts = [start for start, _ in self.sentences]
        self._clause_starts = [start for start, _ in self.clauses]

    def sentence(self, at: int) -> Span:
        """The sentence that holds a position."""
        return self.sentences[max(0, bisect_right(self._sentence_starts, at) - 1)]

    def clause(self, at: int) -> Span:
        """The clause that holds a position."""
        return self.clauses[max(0, bisect_right(self._clause_starts, at) - 1)]

    def sentence_text(self, at: int) -> str:
        start, end = self.sentence(at)
        return self.text[start:end]

    def clause_text(self, at: int) -> str:
        start, end = self.clause(at)
        return self.text[start:end]

    @cached_property
    def _denials(self) -> dict[Span, tuple[Denial, ...]]:
        return {}

    def denies(self, start: int, end: int, names: Sequence[Span] = (), *, gone: bool = False) -> bool:
        """Whether the text denies what stands at a place within its clause.

        Args:
            gone: what is said to be over counts as denied (胸痛已经缓解).
            names: other things that are listed with it (没有胸痛、气短), sorted.
        """
        first, last = self.clause(start)
        text = self.text[first:last]
        # Of several names at one place the longest counts.
        begin = bisect_left(names, (first, 0))
        inside = tuple((a - first, b - first) for a, b in islice(names, begin, begin + _NAMES) if b <= last)
        after = text[end - first :]
        if _ALL_DENIED.match(after) or (gone and _GONE.match(after)):
            return True
        if _LISTED.search(_masked(text[: start - first])):
            return True
        by = self._denied_in((first, last), text, inside)
        if is_name_denied(text, start - first, end - first, by, maybe=False):
            return not _asks_only(by, start - first)
        return any(not d.asks and d.scope_start <= start - first < d.end for d in by)

    def _denied_in(self, clause: Span, text: str, names: Sequence[Span]) -> tuple[Denial, ...]:
        if names:
            return denials(_masked(text), names)
        if clause not in self._denials:
            self._denials[clause] = denials(_masked(text))
        return self._denials[clause]


@lru_cache(maxsize=512)
def read(text: str) -> Reading:
    """Return the reading of a text."""
    return Reading(text)


def _masked(text: str) -> str:
    """The text with its double negations blanked out, every other character at its place."""
    return _DOUBLE.sub(lambda match: "◦" * len(match.group()), text)


def _asks_only(by: Sequence[Denial], start: int) -> bool:
    return any(d.asks and d.scope_start == start for d in by)


def _pieces(text: str, ends: re.Pattern[str], longest: int) -> list[Span]:
    """The stretches between separators, without blank ones, cut where they grow too long to be one.

    Whatever is read around a place is bounded by it, so that reading is linear in the text.
    """
    spans, start = list[Span](), 0
    for match in ends.finditer(text):
        if text[start : match.start()].strip():
            spans += _cut(start, match.start(), longest)
        # A conjunction belongs to the clause that it begins.
        start = match.end() if not match.group()[0].isalpha() else match.start()
    if text[start:].strip():
        spans += _cut(start, len(text), longest)
    return spans or [(0, len(text))]


def _cut(start: int, end: int, longest: int) -> list[Span]:
    return [(first, min(first + longest, end)) for first in range(start, end, longest)]
