"""The browsable page: one HTML file that loads nothing, with the rows as JSON data and a script that filters them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.inspection.choice import Counts
from evaluation.inspection.rows import PARTS, Row
from evaluation.markdown_table import visible

LONGEST = 2000  # characters of one text in the page
MOST_BYTES = 16_000_000  # of the rows' data
_LISTED = 20


def render_page(
    rows: Sequence[Row], counts: Counts, broken: Sequence[str], broken_count: int, *, title: str, source: str
) -> str:
    """Render the page.

    Args:
        rows: those to show; the last ones stay out where the data would exceed `MOST_BYTES`.
        counts: of all rows.
        broken: lines that could not be read, named; `broken_count` of them in all.
        title, source: plain text.
    """
    data, shown = [], 0
    size = 0
    for row in rows:
        text = json.dumps(_row(row), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size += len(text.encode("utf-8", "replace"))
        if size > MOST_BYTES:
            break
        data.append(text)
        shown += 1
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (folder / "page.js").read_text(encoding="utf-8")
    style = (folder / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        title=title,
        source=source,
        counts=counts,
        shown=shown,
        parts=PARTS,
        broken=[visible(line) for line in broken[:_LISTED]],
        broken_count=broken_count,
        longest=LONGEST,
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
        data=Markup(_safe(f"[{','.join(data)}]")),
    )


def _row(row: Row) -> dict[str, Any]:
    texts = {
        "query": row.query,
        "context": row.context.text,
        "rewrite": row.rewrite,
        "baseline": row.baseline,
        "judge": row.judge,
        "detail": row.detail,
    }
    return {
        "n": row.number,
        "step": row.step,
        "split": row.split,
        "id": visible(row.sample_id),
        "kind": row.kind,
        "reason": row.reason,
        "reward": _finite(row.reward),
        "parts": {name: _finite(round(value, 4)) for name, value in row.parts.items()},
        "ranks": row.ranks,
        "slices": [visible(name) for name in row.slices],
        "odd": row.anomalies,
        **{name: _clipped(text) for name, text in texts.items() if text},
    }


def _finite(value: float | None) -> float | None:
    """Return the number, None for what JSON has no word for."""
    return value if value is not None and math.isfinite(value) else None


def _clipped(text: str) -> str:
    if len(text) <= LONGEST:
        return visible(text)
    return f"{visible(text[:LONGEST])} … ({len(text) - LONGEST} more characters are in the CSV file)"


def _safe(text: str) -> str:
    """Escape what would end the data block or be taken for markup, as JSON allows within its strings."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    """Return the hash by which the page's own policy admits its script or style, and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
