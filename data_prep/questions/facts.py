"""What makes a question another one however alike the words are: its numbers and its negations. Pure."""

from __future__ import annotations

import re

from data_prep.questions.split import nfkc_casefold
from reward.text.numbers import ARTICLE, COUNTED, NUMERALS, UNITS, numeral_value

_NUMBER = re.compile(
    rf"(?P<digits>\d+(?:\.\d+)?)|(?P<half>半)(?=[{UNITS}])"
    rf"|(?:(?<=[第周])|(?<=星期))[{NUMERALS}]+"
    rf"|{COUNTED}"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ARTICLE = re.compile(ARTICLE)
_WHETHER = re.compile(r"(\w)[不没]\1")  # 能不能, 有没有: asks, denies nothing
_NEGATION = re.compile(
    r"[不没无未勿否]|非(?!常)|(?<![特区分级性类差个鉴])别"
    r"|(?P<english>(?<![a-z])(?:not?|never|without|cannot)(?![a-z])|(?<=[a-z])n['’]t(?![a-z]))"
)
_ANY = re.compile(rf"[\d半{NUMERALS}不没无未勿否非别]|n[oe'’]|without")  # most queries have none


def facts(query: str) -> str:
    """Return the numbers of a query in their order and its negations in any order; "" if there are none.

    Queries are the same question only if their facts are equal. Chinese numerals count before a unit (两片 is
    2片) and as ordinals. "一个" is an article, and "能不能", 特别 and 非常 are no negations.
    """
    text = nfkc_casefold(query)
    if not _ANY.search(text):
        return ""
    text = _THOUSANDS.sub("", text)
    numbers = []
    for match in _NUMBER.finditer(text):
        number = match["digits"] or ("0.5" if match["half"] else str(numeral_value(match[0])))
        if not (number == "1" and _ARTICLE.match(text, match.end())):
            numbers.append(number)
    denials = _NEGATION.finditer(_WHETHER.sub(r"\1\1", text))
    negations = sorted("not" if match["english"] else match[0] for match in denials)
    return f"{' '.join(numbers)}|{' '.join(negations)}" if numbers or negations else ""
