"""Addresses of services hold no secret: a URL reaches the ledger, logs, reports and the trainer's printed settings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

# What precedes an @ in an address, with or without a scheme; of two @ the last ends it.
_USER = re.compile(r"(:?/+|^|(?<=[\s'\"(=]))[^/?#\s'\"(]*@(?=[^/?#\s])")


def without_credentials(text: str) -> str:
    """Replace user and password of every URL in `text` by `***`."""
    return _USER.sub(r"\1***@", text)


def why_unfit(address: str) -> str:
    """Say why a service's address may not be used, "" when it may; the address is not quoted.

    Args:
        address: a base URL, `URL#model`, or `logits:URL#model`.
    """
    url = address.partition("#")[0]
    host = re.split(r"[/?\\]", re.sub(r"^(?:logits:)?(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*", "", url), maxsplit=1)[0]
    if "@" in host:
        return "a URL must not hold user or password: a key has an environment variable of its own"
    if "?" in url and "://" in url:
        return "a URL must not hold a ?: a key has an environment variable of its own"
    if "://" in url and re.search(r"[\s\\\x00-\x1f\x7f]", url):
        return "a URL must not hold blanks, control characters or backslashes"
    return ""


def _fit(address: str) -> str:
    if problem := why_unfit(address):
        raise ValueError(problem)
    return address


def _base(url: str) -> str:
    if "#" in url:
        raise ValueError("a base URL must not hold a #")
    return _fit(url)


ServiceUrl = Annotated[str, AfterValidator(_base)]
ModelAddress = Annotated[str, AfterValidator(_fit)]  # of a model: also a folder, or a name
