"""A moment as exports write it → ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

_EXCEL_EPOCH = datetime(1899, 12, 30)  # as every reader takes it: day 60 is Excel's 29 February 1900, which never was
_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_ISO = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[T ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\.[0-9]{{1,6}})?{_ZONE}?)?$"
_WRITTEN = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?"
    r"(?:[T\s]*(\d{1,2})[:时点](?:(\d{1,2})(?:[:分](?:(\d{1,2})(?:\.\d+)?秒?)?)?)?)?",
    re.ASCII,
)


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

    Understood are ISO 8601 itself, dates of a workbook, 2026/1/2 3:04, 2026年1月2日 3时4分, 20260102, seconds, milli-,
    micro- and nanoseconds since 1970 (UTC), and Excel's day numbers of the years 1954 to 2119.
    """
    if isinstance(cell, date):
        return cell.isoformat() if isinstance(cell, datetime) else f"{cell.isoformat()}T00:00:00"
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return _from_number(float(cell))
    text = str(cell).strip() if isinstance(cell, str) else ""
    try:
        if re.fullmatch(r"\d{5}(\.\d+)?|\d{9,19}(\.\d+)?", text, re.ASCII):
            return _from_number(float(text))
        if written := _WRITTEN.fullmatch(text):
            return datetime(*(int(part or 0) for part in written.groups())).isoformat()  # type: ignore[arg-type]
        return datetime.fromisoformat(text).isoformat()
    except (ValueError, OverflowError):
        return ""


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
