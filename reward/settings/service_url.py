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


def _check_no_secret(url: str) -> str:
    host = re.split(r"[/?#\\]", re.sub(r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]*", "", url), maxsplit=1)[0]
    if "@" in host:
        raise ValueError(
            "a URL must not hold user or password: name the environment variable of the key in api_key_env"
        )
    if re.search(r"[?#]", url):
        raise ValueError("a base URL must not hold ? or #: name the environment variable of the key in api_key_env")
    if re.search(r"[\s\\]|[^\x20-\x7e\x80-\U0010ffff]", url):
        raise ValueError("a URL must not hold blanks, control characters or backslashes")
    return url


ServiceUrl = Annotated[str, AfterValidator(_check_no_secret)]
