"""What makes a question another one however alike the words are: its numbers and its negations. Pure."""

from __future__ import annotations

import re

from reward.text.fold import fold
from reward.text.mentions import mentions
from reward.text.numbers import NUMERALS
from reward.text.polarity import A_NOT_A, MARKS
from reward.text.quantities import Mention

_ARTICLES = "个种点"
_ANY = re.compile(rf"[\d半{NUMERALS}不没无未勿否非别]|n[oe'’]|without|[a-z]{{3}}")  # most Chinese queries have none


def facts(query: str) -> str:
    """Return the numbers of a query in their order and its negations in any order; "" if there are none.

    Queries are the same question only if their facts are equal. A numeral counts as its value (两片 is 2片, 一片半 is
    1.5片). "一个" is an article, and "能不能", 特别 and 非常 are no negations.
    """
    text = fold(query)
    if not _ANY.search(text):
        return ""
    numbers = [
        str(end.value)
        for mention in mentions(text)
        if not (mention.is_article and mention.text[-1] in _ARTICLES)
        and (not mention.is_loose or _is_rough(text, mention))
        for end in mention.ends
    ]
    denials = MARKS.finditer(A_NOT_A.sub(r"\1\1", text))
    negations = sorted("not" if match["english"] else match[0] for match in denials)
    return f"{' '.join(numbers)}|{' '.join(negations)}" if numbers or negations else ""


def _is_rough(text: str, mention: Mention) -> bool:
    """Whether the number is one of about that many: 十几, 几十."""
    return text.startswith("几", mention.end) or text[max(0, mention.start - 1)] in "几数上近"
