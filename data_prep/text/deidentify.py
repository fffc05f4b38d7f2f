"""Personal data out of free text: what points to a person becomes a placeholder that says what stood there.

我是李医生，电话13812345678 becomes 我是[姓名]医生，电话[电话]. Words that a query needs (医生, 微信) stay. Check digits
are verified, so that barcodes, order numbers, doses and dates survive. Names are masked only where a title, 我叫 or
姓名 tells them; no pattern finds them all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.text import personal_patterns as patterns
from data_prep.text.normalise import normalise_line
from data_prep.text.person_names import PERSON_HINT, find_names
from data_prep.text.postal_addresses import ADDRESS_HINT, find_addresses
from reward.settings.data import DeidentifySettings, PersonalKind


@dataclass(frozen=True)
class _Kind:
    """`hint`: a pattern of RE2 and re alike, without which `find` is not tried."""

    name: PersonalKind
    mask: str
    hint: str
    find: Callable[[str], Iterator[patterns.Span]]


# In this order, as one may look like a part of another: a QQ number or an account's name like that of an e-mail
# address, a phone like the QQ or WeChat account it is called, a card like an identity number, a phone like a piece of a
# card; the numbers of a house are what is left, and the names of roads and villages hold surnames.
_KINDS = (
    _Kind("email", "[邮箱]", patterns.EMAIL_HINT, patterns.find_emails),
    _Kind("wechat", "[微信]", patterns.WECHAT_HINT, patterns.find_wechat),
    _Kind("qq", "[QQ]", patterns.QQ_HINT, patterns.find_qq),
    _Kind("id_card", "[身份证]", patterns.CARD_HINT, patterns.find_identity_cards),
    _Kind("bank_card", "[银行卡]", patterns.CARD_HINT, patterns.find_bank_cards),
    _Kind("phone", "[电话]", patterns.PHONE_HINT, patterns.find_phones),
    _Kind("licence_plate", "[车牌]", patterns.PLATE_HINT, patterns.find_plates),
    _Kind("address", "[地址]", ADDRESS_HINT, find_addresses),
    _Kind("person_title", "[姓名]", PERSON_HINT, find_names),
)
_MASK = re.compile("(" + "|".join(re.escape(kind.mask) for kind in _KINDS) + ")")
_HINTS = {kind.hint: re.compile(kind.hint) for kind in _KINDS}
# What is masked may lay open what stood next to it. The last pass finds nothing: mostly the second.
_PASSES = 8


def deidentify_text(text: str, settings: DeidentifySettings) -> tuple[str, Counter[str]]:
    """Mask the personal data in one normalised text (`data_prep.text.normalise`). Idempotent.

    Args:
        settings: `kinds` are masked; what is within one of the texts `keep` stays.

    Returns:
        The text, and how many places of each kind were masked.
    """
    masked = Counter[str]()
    keep = _normalised(settings.keep)
    parts = _MASK.split(text)  # the odd ones are masks
    for _ in range(_PASSES):
        before = len(parts)
        for kind in _KINDS:
            if kind.name in settings.kinds:
                places = len(parts)
                cut = ([part] if n % 2 else _cut(part, kind, keep) for n, part in enumerate(parts))
                parts = [piece for pieces in cut for piece in pieces]
                masked[kind.name] += (len(parts) - places) // 2
        if len(parts) == before:
            break
    return "".join(parts), +masked


def _cut(text: str, kind: _Kind, keep: tuple[str, ...]) -> list[str]:
    """Cut `text` at what is of this kind: the pieces between, with a mask after each but the last."""
    pieces, last = [], 0
    if _HINTS[kind.hint].search(text):
        for start, end in kind.find(text):
            if not any(_lies_within(kept, text, start, end) for kept in keep):
                pieces += [text[last:start], kind.mask]
                last = end
    return [*pieces, text[last:]]


def _lies_within(kept: str, text: str, start: int, end: int) -> bool:
    """Return whether `kept` occurs in `text` around all of the place."""
    return kept.find(text[start:end]) >= 0 and text.find(kept, max(0, end - len(kept)), start + len(kept)) >= 0


def deidentify_column(texts: pa.Array, settings: DeidentifySettings) -> tuple[pa.Array, Counter[str]]:
    """Apply `deidentify_text` to each text; a missing text stays missing.

    Args:
        texts: Arrow strings, normalised.

    Returns:
        As many strings, in the same order, and how many places of each kind were masked.
    """
    masked = Counter[str]()
    if not settings.kinds:
        return texts, masked
    hints = "|".join(sorted({f"(?:{kind.hint})" for kind in _KINDS if kind.name in settings.kinds}))
    # Arrow looks through a million texts in about a second; the few that may hold something are read by Python.
    rows = pc.fill_null(pc.match_substring_regex(texts, hints), False)
    cleaned = []
    for text in texts.filter(rows).to_pylist():
        clean, found = deidentify_text(text, settings)
        cleaned.append(clean)
        masked += found
    return pc.replace_with_mask(texts, rows, pa.array(cleaned, texts.type)), masked


@lru_cache(maxsize=16)
def _normalised(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalise_line(text) for text in texts)
