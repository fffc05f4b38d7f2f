"""Addresses of services hold no secret: a URL reaches logs, answers' problems and identities."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_SCHEME = re.compile(r"^(?:logits:)?(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*")


def why_unfit(address: str) -> str:
    """Say why `address` (URL, `URL#model`, `logits:URL#model`) may not be used, "" when it may. It is not quoted."""
    url = address.partition("#")[0]
    host = re.split(r"[/?\\]", _SCHEME.sub("", url), maxsplit=1)[0]
    if "@" in host:
        return "a URL must not hold user or password: keys have environment variables of their own"
    if "?" in url and "://" in url:
        return "a URL must not hold a ?: keys have environment variables of their own"
    return ""


def _checked(address: str) -> str:
    if problem := why_unfit(address):
        raise ValueError(problem)
    return address


ServiceUrl = Annotated[str, AfterValidator(_checked)]
