"""Mask personal data: what points to a person becomes a placeholder that says what stood there.

我是李医生，电话13812345678 becomes 我是[姓名]医生，电话[电话]. Words that a query needs (医生, 微信) stay. Check digits
are verified, so that barcodes, order numbers, doses and dates survive. Names are masked only where a title, 我叫 or
姓名 tells them; no pattern finds them all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from guard.personal import number_patterns as patterns
from guard.personal.kinds import ALL_KINDS, PersonalKind
from guard.personal.normal_form import normalise_line, normalise_lines
from guard.personal.person_names import PERSON_HINT, find_names
from guard.personal.postal_addresses import ADDRESS_HINT, find_addresses


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
_ANY = re.compile("|".join(f"(?:{kind.hint})" for kind in _KINDS))
_HINTS = {kind.hint: re.compile(kind.hint) for kind in _KINDS}
# What is masked may lay open what stood next to it. The last pass finds nothing: mostly the second.
_PASSES = 8


def hints(kinds: Sequence[PersonalKind] = ALL_KINDS) -> str:
    """Return a pattern, of RE2 and re alike, without which a text holds nothing of these kinds."""
    return "|".join(sorted({f"(?:{kind.hint})" for kind in _KINDS if kind.name in kinds}))


def mask_text(
    text: str, kinds: Sequence[PersonalKind] = ALL_KINDS, keep: Sequence[str] = ()
) -> tuple[str, Counter[str]]:
    """Mask the personal data in one normalised text (`normal_form`). Idempotent.

    Args:
        keep: what is within one of these texts stays.

    Returns:
        The text, and how many places of each kind were masked.
    """
    masked = Counter[str]()
    kept = _normalised(tuple(keep))
    parts = _MASK.split(text)  # the odd ones are masks
    for _ in range(_PASSES):
        before = len(parts)
        for kind in _KINDS:
            if kind.name in kinds:
                places = len(parts)
                cut = ([part] if n % 2 else _cut(part, kind, kept) for n, part in enumerate(parts))
                parts = [piece for pieces in cut for piece in pieces]
                masked[kind.name] += (len(parts) - places) // 2
        if len(parts) == before:
            break
    return "".join(parts), +masked


def mask_message(text: str, keep: Sequence[str] = (), kinds: Sequence[PersonalKind] = ALL_KINDS) -> str:
    """Mask the personal data in any text, such as a message that quotes a cell. A text without any stays as it is,
    any other is normalised.

    Args:
        keep: what is within one of these texts stays: the paths that the user typed.
    """
    normal = normalise_lines(text)
    if not _ANY.search(normal):
        return text
    masked, found = mask_text(normal, kinds, keep)
    return masked if found else text


@lru_cache(maxsize=100_000)
def mask_id(name: str) -> str:
    """Mask an id, such as the name of a file, and tell apart what the masks make equal: 李医生手册.pdf#3 becomes
    [姓名]医生手册.pdf#3~5b0e1f2a. The same id is masked in the same way everywhere."""
    normal = name if name.isascii() else normalise_line(name)
    if not _ANY.search(normal):
        return name
    masked, found = mask_text(normal)
    return f"{masked}~{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}" if found else name


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


@lru_cache(maxsize=16)
def _normalised(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalise_line(text) for text in texts)
