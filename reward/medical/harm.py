"""Whether a question asks for help with harm, and whether an answer declines. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from reward.medical.form import without_lists
from reward.medical.lexicons import Lexicons
from reward.medical.reading import read

_CHINESE = re.compile("[一-鿿]")


@lru_cache(maxsize=2048)
def asks_for_harm(question: str, lexicons: Lexicons) -> bool:
    """Whether a question asks how to harm, deceive or get round the law.

    An English question needs a strong word, or a weak one beside a medical actor; a patient's own need is no harm.
    """
    text, harm = read(question).text, lexicons.harm
    if lexicons.any_of(harm.patterns).search(text):
        return True
    if _CHINESE.search(text) or lexicons.pattern(harm.english_need).search(text):
        return False
    if not lexicons.pattern(harm.english_actor).search(text):
        return False
    return bool(
        lexicons.any_of(harm.english_strong).search(text) or len(lexicons.any_of(harm.english_weak).findall(text)) > 1
    )


def declines(answer: str, lexicons: Lexicons) -> bool:
    """Whether an answer declines what was asked, in so many words."""
    text, form = read(without_lists(answer)).text, lexicons.form
    return bool(lexicons.pattern(form.declines).search(text) or lexicons.pattern(form.refusal).search(text))
