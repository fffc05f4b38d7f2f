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
PIECE = 6  # new units: a shared run of that length is no coincidence of terms
SKIPPED = 1  # units of a passage that a recital may leave out between two others
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
    """Return how much of one passage the rewrite recites, in new units; a word of letters counts as two.

    A run is a sequence of units in the passage's order. Between two of them `SKIPPED` units of the passage may be left
    out, and one may be put in: a thinned passage is a recital too. Runs with at least `PIECE` new units count together,
    so that pieces in another order are; shorter ones count alone, the longest of them. Units that `known` (query and
    context) holds do not count: to repeat what the customer said is no recital.

    Time: for each passage, at worst the square of the rewrite's units.
    """
    said = units(rewrite)
    known_units = set(units(known))
    weights = [0 if unit in known_units else 1 if len(unit) == 1 else 2 for unit in said]
    return max((_recited(said, weights, _places(passage)) for passage in passages), default=0)


def idle_units(rewrite: str, passages: Iterable[str], known: str) -> int:
    """Return how many units of the rewrite neither a passage nor `known` (query and context) holds, each once.

    Fillers and stop words do not count, nor does another form of a word.
    """
    said = set(units(_FILLERS.sub(" ", fold(rewrite)))) - _STOP_WORDS
    held = set(_STEMMER.stemWords(units(known)))
    for passage in passages:
        held.update(_STEMMER.stemWords(list(_places(passage))))
    return sum(stem not in held for stem in _STEMMER.stemWords(list(said)))


@lru_cache(maxsize=2048)  # the same passages are found again and again
def _places(passage: str) -> dict[str, int]:
    """Each unit's places in the passage, as the bits of a number."""
    places: dict[str, int] = {}
    for place, unit in enumerate(units(passage)):
        places[unit] = places.get(unit, 0) | 1 << place
    return places


def _recited(said: list[str], weights: list[int], places: dict[str, int]) -> int:
    pieces = longest = start = 0
    while start < len(said):
        end, new = _run(said, weights, places, start)
        longest = max(longest, new)
        if new >= PIECE:
            pieces += new
        # A run of words that are known alone is passed over, not tried again from each of them.
        start = end if new >= PIECE or (new == 0 and end > start) else start + 1
    return max(longest, pieces)


def _run(said: list[str], weights: list[int], places: dict[str, int], start: int) -> tuple[int, int]:
    """Return (end, new units) of the run that begins at `start`."""
    at, new, place, end = places.get(said[start], 0), 0, start, start
    while at:
        new, end = new + weights[place], place + 1
        # Bit arithmetic moves all places of the passage where the run may be at once.
        reached = _reach(at)
        for place in (end, end + 1):
            if place < len(said) and (found := reached & places.get(said[place], 0)):
                at = found
                break
        else:
            break
    return end, new


def _reach(at: int) -> int:
    reached = 0
    for step in range(1, SKIPPED + 2):
        reached |= at << step
    return reached
