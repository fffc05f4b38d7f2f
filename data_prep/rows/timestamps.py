"""A moment as exports write it → ISO 8601."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from dateutil import parser

from plain_text.marks import BLANKS

_EXCEL_EPOCH = datetime(1899, 12, 30)  # as every reader takes it: day 60 is Excel's 29 February 1900, which never was
_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_ISO = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[T ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\.[0-9]{{1,6}})?{_ZONE}?)?$"
_WRITTEN = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?"
    r"(?:[T\s]*(?:星期.|周.)?\s*(上午|下午|晚上|凌晨|中午|AM|PM|am|pm)?\s*(\d{1,2})[:时点](?:(\d{1,2})(?:[:分](?:(\d{1,2})(?:\.\d+)?秒?)?)?)?)?",
    re.ASCII,
)
_AFTERNOON = ("下午", "晚上", "PM", "pm")
_FRACTION = re.compile(r"(?<=:\d\d)[.,](?=\d{7})(\d{6})\d+")  # nanoseconds
_GO_CLOCK = re.compile(r"\s+m=[+-]\d+\.\d+$")
_ACCESS_LOG = re.compile(r"^(\d{1,2}/[A-Za-z]{3}/\d{4}):(\d\d:\d\d:\d\d)")


def read_timestamps(texts: pa.Array) -> pa.Array:
    """Apply `read_timestamp` to each of Arrow strings; ISO 8601 is checked without a loop."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    iso = pc.match_substring_regex(texts, _ISO)
    try:
        pc.replace_substring_regex(pc.if_else(iso, texts, None), f"{_ZONE}$", "").cast(pa.timestamp("us"))
    except pa.ArrowInvalid:  # a 30 February among them
        iso = pa.array(
            [good and _is_moment(text) for good, text in zip(iso.to_pylist(), texts.to_pylist(), strict=True)]
        )
    moments = pc.replace_substring_regex(texts, "^(.{10}) ", r"\1T")
    moments = pc.replace_substring_regex(moments, "^(.{10})$", r"\1T00:00:00")
    moments = pc.replace_substring_regex(moments, "Z$", "+00:00")
    odd = pc.and_(pc.invert(iso), pc.not_equal(texts, ""))
    if not pc.any(odd).as_py():
        return moments
    return pc.replace_with_mask(
        moments, odd, pa.array([read_timestamp(text) for text in texts.filter(odd).to_pylist()])
    )


def _is_moment(iso: str) -> bool:
    try:
        datetime.fromisoformat(iso)
    except ValueError:
        return False
    return True


def read_timestamp(cell: object) -> str:
    """Read `2026-01-02T03:04:05`, with fraction and zone (`+08:00`) where they are given, or "" where no moment is
    meant.

    Understood are ISO 8601 itself, dates of a workbook, 2026/1/2 3:04, 2026年1月2日 下午3时4分, 20260102 (030405),
    seconds, milli-, micro- and nanoseconds since 1970 (UTC), Excel's day numbers of the years 1954 to 2119, MongoDB's
    {"$date": …}, and what dateutil reads in one way only: access logs, mail, ctime, Go. 01/02/2024 has two readings.
    """
    if isinstance(cell, date):
        return cell.isoformat() if isinstance(cell, datetime) else f"{cell.isoformat()}T00:00:00"
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return _from_number(float(cell))
    if isinstance(cell, Mapping):
        return _from_object(cell)
    text = cell.strip(BLANKS) if isinstance(cell, str) else ""
    try:
        if text.startswith("{"):
            return _from_object(json.loads(text))
        if re.fullmatch(r"\d{5}(\.\d+)?|\d{9,19}(\.\d+)?", text, re.ASCII):
            return _from_digits(text) or _from_number(float(text))
        if written := _WRITTEN.fullmatch(text):
            year, month, day, half, hour, minute, second = written.groups()
            clock = int(hour or 0) + 12 * (half in _AFTERNOON and int(hour) < 12)
            return datetime(int(year), int(month), int(day), clock, int(minute or 0), int(second or 0)).isoformat()
        return datetime.fromisoformat(_FRACTION.sub(r".\1", text)).isoformat()
    except (ValueError, OverflowError, RecursionError):
        return _from_words(text)


def _from_object(value: object) -> str:
    """Read MongoDB's extended JSON, and objects that hold seconds."""
    for name in ("$date", "$numberLong", "$timestamp", "seconds", "t") if isinstance(value, Mapping) else ():
        if name in value:  # type: ignore[operator]
            inner = value[name]  # type: ignore[index]
            return read_timestamp(inner)
    return ""


def _from_digits(text: str) -> str:
    """Read 20240102030405, 202401020304 and fractions of a second behind the former."""
    for digits, layout in ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M")):
        if not re.match(r"(19[89]|20[0-9])\d", text):  # milliseconds of twelve digits are of 1973 to 2001
            return ""
        if len(text) == digits or (digits == 14 and 14 < len(text) <= 20):
            try:
                return datetime.strptime(text[:digits], layout).isoformat()
            except ValueError:
                continue
    return ""


def _from_words(text: str) -> str:
    """Read what dateutil understands, when the order of its numbers does not matter and no part of the date is
    missing."""
    if not 8 <= len(text) <= 60 or not re.search(r"\d", text):
        return ""
    plain = _GO_CLOCK.sub("", text)
    plain = _ACCESS_LOG.sub(r"\1 \2", plain.strip("[]"))
    plain = plain.replace(" @ ", " ")  # Kibana
    plain = re.sub(r"([+-]\d{4}) [A-Z]{2,5}$", r"\1", plain)
    found = set()
    for day_first in (False,) if re.match(r"\d{4}\D", plain) else (False, True):
        for unsaid in (datetime(2001, 2, 3), datetime(2004, 5, 6)):  # what is not said must not come from here
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a zone's name that has many meanings
                    found.add(parser.parse(plain, dayfirst=day_first, default=unsaid).isoformat())
            except (ValueError, OverflowError, TypeError):
                return ""
    return found.pop() if len(found) == 1 else ""


def _from_number(value: float) -> str:
    if 20_000 <= value < 80_000:
        return (_EXCEL_EPOCH + timedelta(seconds=round(value * 86_400))).isoformat()
    for digits in (0, 3, 6, 9):  # of an epoch in seconds, milli-, micro-, nanoseconds
        if 1e8 <= value / 10**digits < 1e10:
            return datetime.fromtimestamp(value / 10**digits, UTC).isoformat()
    text = f"{value:.0f}" if 19_000_101 <= value <= 21_001_231 else ""
    try:
        return datetime.strptime(text, "%Y%m%d").isoformat()
    except ValueError:
        return ""
