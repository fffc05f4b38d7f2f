"""What an answer names only to warn of it: denied, forbidden, or quoted and called wrong. Pure."""

from __future__ import annotations

import re

from reward.medical.lexicons import Lexicons
from reward.medical.reading import Reading, Span

_HOWEVER = re.compile("(?:可以|改用|改吃|换成|而是|应(?:该)?(?:吃|服|用)|就(?:吃|服|用)|直接(?:吃|服|用))")
_QUOTES = re.compile("[\"'“”‘’「」『』《》]")
_ENDS_REFUTED = 6  # characters that may follow a refutation in its clause


def is_warned(reading: Reading, span: Span, lexicons: Lexicons) -> bool:
    """Whether the clause denies or warns of what stands at a place, or says afterwards that it is wrong."""
    start, end = span
    first, last = reading.clause(start)
    risks = lexicons.risks
    before = reading.text[first:start]
    # 不要自行服用A、B: one warning for a list; a new verb of advice ends it.
    if lexicons.pattern(risks.warned).search(before) and not _HOWEVER.search(before):
        return True
    if reading.denies(start, end):
        return True
    if lexicons.pattern(risks.warned_after).search(reading.text[end:last]):
        return True
    return _refuted(reading, span, lexicons)


def _refuted(reading: Reading, span: Span, lexicons: Lexicons) -> bool:
    """Whether what stands at a place is quoted, or told of others, and then called wrong, in its sentence or the next.

    有人说发烧要捂汗，这是错误的. What is said in the speaker's own name is no report, whatever follows it.
    """
    risks, (first, last) = lexicons.risks, reading.sentence(span[0])
    before = reading.text[first : span[0]]
    is_quoted = len(_QUOTES.findall(before)) % 2 == 1
    if not is_quoted and not lexicons.pattern(risks.reported).search(before):
        return False
    # Clause by clause to the end of the next sentence.
    at, until = span[1] - 1, reading.sentence(min(last + 2, len(reading.text)))[1]
    while at < until:
        start, end = reading.clause(at)
        at = max(end, at) + 1
        # What is quoted ends with its mark: “…”这种说法不对.
        after = reading.text[max(start, span[1]) : end]
        for match in lexicons.pattern(risks.refuted).finditer(after):
            opens = not re.search("[一-鿿a-z]", _QUOTES.split(after[: match.start()])[-1])
            if opens and len(after) - match.end() <= _ENDS_REFUTED:
                return True
    return False
