"""What a service means when it does not answer: its status, its own words, and how long it asks to wait. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from reward.records.call import FailureKind, ServiceFailure

WORDS = 200  # characters of a service's own words in a reason
LONGEST_RETRY_AFTER = 60.0  # seconds; a service that asks for more is asked again after that

# Statuses below 500 that another attempt may not meet: the request came too slowly, crossed another, or was too early.
_PASSING = frozenset({408, 409, 425, 499})
# Statuses of a gateway that gave up waiting: the model behind it may have written, and billed, its answer.
_GAVE_UP = frozenset({408, 499, 504, 524})
_READ = 16_000  # bytes of a refusal that are looked at
_HIDDEN = re.compile(r"\b(?:sk-|bearer\s+)[\w.\-]{8,}", re.IGNORECASE)
_TAGS = re.compile(r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
# Words for an account that has nothing left. They mean the same whatever stands around them.
_QUOTA = re.compile(
    r"insufficient[_ ]?(?:user |user_|account |account_|token )?(?:quota|balance|funds?|credits?)"
    r"|(?:balance|quota|credits?|funds) (?:is |are |has been )?(?:too low|insufficient|not enough|exhausted|depleted)"
    r"|not enough (?:credits?|balance|funds|quota)|no (?:remaining |more )?(?:credits?|balance)"
    r"|(?:used|spent) (?:up )?all (?:of )?(?:your |the |its )?(?:available |included )?(?:credits?|quota)"
    r"|exceeded[_ ]current[_ ]quota|exceeded your (?:monthly|included)|(?:spending|billing|hard)[_ ](?:hard[_ ])?limit"
    r"|out of (?:credits?|call volume quota)|arrear|overdue|unpaid|billing_not_active|payment required"
    r"|resource ?pack ?exhausted|free ?tier ?only|free tier of the model has been exhausted"
    r"|欠费|余额不足|余额已?(?:用完|用尽|耗尽)|额度(?:已经?)?(?:不足|用完|用尽|耗尽)|账户异常.{0,6}充值",
    re.IGNORECASE,
)
# The same words stand in answers of services that only want to be asked more slowly.
_EITHER = re.compile(r"exceeded your current quota|quota (?:has been )?exceeded|exceeded (?:the |your )?quota", re.I)
_SLOWER = re.compile(
    r"per[ _-]?(?:second|minute|hour|day)|rate[ _-]?limit|retry (?:in|after)|throttl|[rt]p[ms]\b", re.I
)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(ms|s|m|h)[a-z]*", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def failure_of_status(
    status: int, content: bytes, headers: Mapping[str, str] | None = None, secret: str = ""
) -> ServiceFailure:
    """Say what an HTTP status other than 200 means, in the service's own words.

    Args:
        headers: of the answer; a redirect's `Location` is shown without credentials and query.
        secret: the API key that was sent; it never enters a reason.
    """
    told = _told(content)
    words = _one_line(told, secret)
    if 300 <= status < 400:
        target = _shown(next((value for name, value in (headers or {}).items() if name.lower() == "location"), ""))
        return ServiceFailure(f"HTTP {status}: redirects to {target or 'nowhere'}", FailureKind.MALFORMED)
    reason = f"HTTP {status}: {words}" if words else f"HTTP {status}"
    # A 422 may quote the request, in which anything can be written.
    if status == 402 or (status >= 400 and status != 422 and says_quota_exhausted(told)):
        return ServiceFailure(reason, FailureKind.QUOTA_EXHAUSTED)
    return ServiceFailure(reason, _kind(status))


def failure_in_answer(answer: Mapping[str, Any], secret: str = "") -> ServiceFailure | None:
    """Return the failure that a 200 answer reports in an `error`, None when it reports none."""
    if not answer.get("error"):
        return None
    return refusal_in(answer, "an error inside a 200", secret)


def refusal_in(answer: Mapping[str, Any], what: str, secret: str = "") -> ServiceFailure:
    """Return the failure of a 200 answer that lacks what was asked for: what is wrong, then the service's own words."""
    told = _words_in(answer)
    words = _one_line(told, secret)
    reason = f"{what}: {words}" if words else what
    if says_quota_exhausted(told):
        return ServiceFailure(reason, FailureKind.QUOTA_EXHAUSTED)
    # Some relays put the status into the error.
    return ServiceFailure(reason, FailureKind.RATE_LIMITED if _names_429(answer) else FailureKind.MALFORMED)


def may_be_billed(status: int) -> bool:
    """Say whether a request that ended with this status may have been worked on: a gateway gave up waiting."""
    return status in _GAVE_UP


def _told(content: bytes) -> str:
    """Return what a refusal says: the message of a JSON error, the title of a page, else the beginning of the text."""
    text = content[:_READ].decode(errors="replace")
    try:
        return _words_in(json.loads(text))[:_READ]
    except (ValueError, RecursionError):
        title = _TITLE.search(text)
        return title.group(1) if title and title.group(1).strip() else _TAGS.sub(" ", text)


def says_quota_exhausted(text: str) -> bool:
    """Say whether a refusal's text means that the account has nothing left, not that it is asked too fast."""
    return bool(_QUOTA.search(text)) or bool(_EITHER.search(text) and not _SLOWER.search(text))


def wait_asked(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait, 0 to `LONGEST_RETRY_AFTER`: of `retry-after-ms`, else
    `Retry-After`; a date is read by the server's own clock (`Date`)."""
    known = {name.lower(): value for name, value in headers.items()}
    exact = known.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,15}(\.\d+)?", exact, re.ASCII):
        return min(float(exact) / 1000, LONGEST_RETRY_AFTER)
    return retry_after(known.get("retry-after"), known.get("date"))


def retry_after(header: str | None, date: str | None = None) -> float:
    """Return the seconds that a `Retry-After` header asks for, from 0 to `LONGEST_RETRY_AFTER`; 0 for none and for one
    that cannot be read.

    It may be seconds or an HTTP date (RFC 9110), or a duration such as `30s` or `1m30s`.

    Args:
        date: the answer's `Date` header: a date is as far away as it is from there, whatever our clock says.
    """
    text = (header or "").strip()
    if not text.isascii():
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return min(float(text), LONGEST_RETRY_AFTER)
    if re.fullmatch(rf"(?:{_DURATION.pattern}\s*)+", text, re.IGNORECASE):
        total = sum(float(number) * _SECONDS[unit.lower()] for number, unit in _DURATION.findall(text))
        return min(total, LONGEST_RETRY_AFTER)
    until = _date(text)
    if until is None:
        return 0.0
    now = _date(date or "") or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def _kind(status: int) -> FailureKind:
    if status == 429:
        return FailureKind.RATE_LIMITED
    if status >= 500 or status in _PASSING:
        return FailureKind.SERVER_ERROR
    if status in (401, 403):
        return FailureKind.NOT_AUTHORISED
    # A redirect, or a success without the promised answer, is no refusal.
    return FailureKind.REJECTED if status >= 400 else FailureKind.MALFORMED


def _words_in(value: Any) -> str:
    """Return the message in a service's JSON, with its code where that is a word."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words_in, value[:3])))
    if not isinstance(value, dict):
        return ""
    # The error itself may be nested: {"error": {…}}, {"base_resp": {…}}, {"errors": [{…}]}.
    for name in ("error", "errors", "base_resp", "Error", "Response", "ResponseMetadata"):
        if inner := _words_in(value.get(name)):
            return inner
    names = ("message", "msg", "detail", "status_msg", "error_msg", "errorMessage", "Message", "error_description")
    message = next((text for name in names if (text := _words_in(value.get(name)))), "")
    codes = (value.get(name) for name in ("code", "Code", "type"))
    code = next((text for text in codes if isinstance(text, str) and text.strip() and not text.strip().isdigit()), "")
    return f"{code}: {message}" if code and message and code not in message else message or code


def _names_429(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return any(str(value.get(name)) == "429" for name in ("code", "status", "status_code")) or _names_429(
        value.get("error")
    )


def _one_line(text: str, secret: str) -> str:
    if secret:
        text = text.replace(secret, "***")
    text = _HIDDEN.sub("***", text)
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:WORDS]


def _shown(location: str) -> str:
    try:
        target = urlsplit(location.strip())
        host = target.hostname or ""
        port = f":{target.port}" if target.port else ""
    except ValueError:
        return ""
    place = f"{target.scheme}://{host}{port}" if host and target.scheme else f"//{host}{port}" if host else ""
    return _one_line(place + target.path, "")
