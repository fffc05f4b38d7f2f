"""A text as a sequence of units, and what one text shares with another: new content, copied runs. Pure.

A unit is one Chinese character, or one word or number of any other script. Order, spacing, punctuation and symbols are
no content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import Stemmer

from reward.text.fold import fold

_UNIT = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]|(?:(?![\u3400-\u9fff\U00020000-\U0003ffff])[^\W_])+")
# Words that ask without saying about what: politeness, particles, question words.
_FILLERS = re.compile(
    "请问|请教|想问|问一下|问下|麻烦|帮我|告诉我|我想|想知道|知道|你好|您好|谢谢|大家|各位|亲"
    "|一下|怎么样|怎么办|怎么|怎样|如何|为什么|为啥|什么|啥|哪些|哪个|哪里|多少|几个"
    "|能不能|可不可以|是不是|有没有|会不会|行不行|好不好|可以|能否|可否|是否|能|会"
    "|[吗呢吧啊呀哦嘛啦咋的了着过是有在我你您他她它这那个和与及或就都也还]"
)
_STOP_WORDS = frozenset(
    """
    a an the of in on at to for from by with and or is are was were be been am do does did can could will would should
    i you he she it we they me my your his her its our their this that these those what which who whom whose when
    where why how please tell about there hi hello thanks thank any some
    """.split()  # noqa: SIM905
)
_SEPARATOR = "\x1f"
PIECE = 6  # units: a shared run of that length is no coincidence of terms
_STEMMER = Stemmer.Stemmer("english")


def units(text: str) -> list[str]:
    """Return the units of a text, folded, in order."""
    return _UNIT.findall(fold(text))


def new_content(rewrite: str, query: str) -> float:
    """Return the share of the rewrite's content that the query lacks, in [0, 1].

    Fillers and stop words count on neither side, nor does order: the query with a question mark, with 请问 before it,
    twice, shuffled or cut short has no new content. Another form of a word (supplement, supplements) is not new.
    """
    said = set(units(_FILLERS.sub(" ", fold(rewrite)))) - _STOP_WORDS
    if not said:
        return 0.0
    known = set(_STEMMER.stemWords(units(query)))
    return sum(stem not in known for stem in _STEMMER.stemWords(list(said))) / len(said)


def copied_run(rewrite: str, passages: Iterable[str], known: str) -> int:
    """Return how much of one passage the rewrite recites, in new units.

    A run is an unbroken sequence of units that both share. Runs of at least `PIECE` units count together, so that
    pieces in another order are a recital too; shorter ones count alone, the longest of them. Units that `known` (query
    and context) holds do not count: to repeat what the customer said is no recital.

    Time: for each passage, twice as many searches as the rewrite has units.
    """
    said = units(rewrite)
    known_units = set(units(known))
    is_new = [unit not in known_units for unit in said]
    longest = 0
    for passage in passages:
        longest = max(longest, _recited(said, is_new, _joined(passage)))
    return longest


@lru_cache(maxsize=2048)  # the same passages are found again and again
def _joined(passage: str) -> str:
    return _SEPARATOR + _SEPARATOR.join(units(passage)) + _SEPARATOR


def _recited(said: list[str], is_new: list[bool], text: str) -> int:
    # A window over the rewrite: its end advances while the passage holds it, else the run is complete.
    pieces = longest = start = 0
    for end in range(1, len(said) + 2):
        run = said[start:end]
        if end <= len(said) and _SEPARATOR + _SEPARATOR.join(run) + _SEPARATOR in text:
            continue
        new = sum(is_new[start : end - 1])
        longest = max(longest, new)
        if end - 1 - start >= PIECE:
            pieces, start = pieces + new, end - 1
        while start < end <= len(said) and _SEPARATOR + _SEPARATOR.join(said[start:end]) + _SEPARATOR not in text:
            start += 1
    return max(longest, pieces)
