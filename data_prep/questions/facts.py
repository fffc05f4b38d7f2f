"""What makes a question another one however alike the words are: its numbers and its negations. Pure."""

from __future__ import annotations

import re

from reward.text.fold import fold
from reward.text.mentions import mentions
from reward.text.numbers import NUMERALS
from reward.text.polarity import A_NOT_A, MARKS

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
        if not (mention.is_article or (mention.is_loose and not text.startswith("几", mention.end)))
        for end in mention.ends
    ]
    denials = MARKS.finditer(A_NOT_A.sub(r"\1\1", text))
    negations = sorted("not" if match["english"] else match[0] for match in denials)
    return f"{' '.join(numbers)}|{' '.join(negations)}" if numbers or negations else ""
