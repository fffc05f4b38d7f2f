"""The kinds of personal data that are masked."""

from __future__ import annotations

from typing import Literal, get_args

PersonalKind = Literal[
    "phone", "id_card", "bank_card", "email", "wechat", "qq", "address", "licence_plate", "person_title"
]
ALL_KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)
