"""One strict reader of JSON that other programs and models wrote."""

from __future__ import annotations

import json
import re
from typing import Any

_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(text: str) -> dict[str, Any]:
    """Read the one JSON object that `text` is.

    Raises:
        ValueError: with the reason: no JSON, anything around it, a key twice, NaN or Infinity, a number or a nesting
            beyond what Python reads, half a surrogate pair (UTF-8 cannot hold it), or no object.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        if _LONE_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise ValueError(f"not JSON: {' '.join(text[:80].split()) or '(empty)'}") from None
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"not JSON: key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is no number")
