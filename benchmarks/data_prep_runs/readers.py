"""Read one file by one way of reading and print what that took: a process of its own, so that its memory is its own.

    python -m benchmarks.data_prep_runs.readers WAY FILE

Every way ends in the same canonical rows: texts, recall results as hits, their count and scores (computed from the hits
where they are not recorded), success as a truth value; a row that cannot be read is refused and counted. The two peers
do it as scripts do, row by row into a list. Seconds leave out the imports. Prints one JSON object (`Reading`).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.readers.log_file import read_logs
from data_prep.readers.workbook import read_workbook
from data_prep.rows.columns import LOG_PATHS, SCORES, TEXTS
from reward.settings.data import SourceSettings

_REQUIRED = ("original_query", "rewritten_query", "success")
_TRUE, _FALSE = {"true", "1", "yes", "是", "成功"}, {"false", "0", "no", "否", "失败"}


@dataclass(frozen=True)
class Reading:
    """What a way of reading found: rows, those refused, and of the others the characters of their queries and the sum
    of their first hits' scores; and the seconds it took."""

    rows: int
    refused: int
    characters: int
    top1_total: float
    seconds: float


def read_batches(batches: Iterable[pa.RecordBatch]) -> tuple[int, int, int, float]:
    rows = refused = characters = 0
    total = 0.0
    for batch in batches:
        usable = batch.filter(pc.equal(batch["refused"], ""))
        rows += batch.num_rows
        refused += batch.num_rows - usable.num_rows
        characters += pc.sum(pc.utf8_length(usable["original_query"])).as_py() or 0
        total += pc.sum(usable["top1_score"]).as_py() or 0.0
    return rows, refused, characters, total


def read_frame(path: Path) -> tuple[int, int, int, float]:
    """Read with pandas and openpyxl, then loop over the rows."""
    frame = pd.read_excel(path, engine="openpyxl", dtype=object, na_filter=False)
    return _canonical(cast(list[Mapping[str, Any]], frame.to_dict("records")))


def read_lines(path: Path) -> tuple[int, int, int, float]:
    """Read with `json.loads` line by line and pick the fields from where a service's log nests them."""

    def fields() -> Iterable[Mapping[str, Any]]:
        paths = {name: [path.split(".") for path in found] for name, found in LOG_PATHS.items()}
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                except ValueError:
                    yield {}
                    continue
                yield {name: _first(value, found) for name, found in paths.items()}

    return _canonical(fields())


def _first(value: Any, paths: list[list[str]]) -> Any:
    for path in paths:
        found = value
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def _canonical(records: Iterable[Mapping[str, Any]]) -> tuple[int, int, int, float]:
    rows, refused = [], 0
    for record in records:
        try:
            rows.append(_row(record))
        except (ValueError, KeyError, TypeError):
            refused += 1
    return (
        len(rows) + refused,
        refused,
        sum(len(row["original_query"]) for row in rows),
        sum(row["top1_score"] for row in rows if row["top1_score"] is not None),
    )


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: str(record.get(name) or "") for name in TEXTS}
    if not row["original_query"].strip():
        raise ValueError("original_query: empty")
    recall = record.get("recall_results")
    hits = json.loads(recall) if isinstance(recall, str) and recall else recall or []
    row["recall_results"] = json.dumps(
        [
            {
                "content": str(hit["content"]),
                "score": _number(hit.get("score")),
                "reranker_score": _number(hit.get("reranker_score")),
                "doc_id": str(hit["doc_id"]) if hit.get("doc_id") is not None else None,
            }
            for hit in hits
        ],
        ensure_ascii=False,
    )
    for name in SCORES:
        row[name] = _number(record.get(name))
    # Scores that are not recorded are computed from the hits, as the project's own readers do.
    relevance = [hit["reranker_score"] if hit.get("reranker_score") is not None else hit.get("score") for hit in hits]
    if hits:
        row["top1_score"] = row["top1_score"] if row["top1_score"] is not None else relevance[0]
        mean = math.fsum(relevance[:3]) / len(relevance[:3])
        row["avg_top3_score"] = row["avg_top3_score"] if row["avg_top3_score"] is not None else mean
    count = _number(record.get("recall_count"))
    row["recall_count"] = len(hits) if count is None else int(count)
    if row["recall_count"] < 0:
        raise ValueError("recall_count: not a count")
    success = str(record["success"]).strip().lower() if record.get("success") not in (None, "") else ""
    if success and success not in _TRUE | _FALSE:
        raise ValueError("success: neither true nor false")
    row["success"] = success in _TRUE if success else None
    return row


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


WAYS: dict[str, Callable[[Path], tuple[int, int, int, float]]] = {
    "read_workbook": lambda path: read_batches(read_workbook(path, SourceSettings(), _REQUIRED)),
    "read_logs": lambda path: read_batches(read_logs(path, SourceSettings(), ("original_query",))),
    "pandas+openpyxl": read_frame,
    "json.loads loop": read_lines,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_prep_runs.readers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("file", type=Path)
    args = parser.parse_args(argv)
    start = time.perf_counter()
    found = WAYS[args.way](args.file)
    print(json.dumps(asdict(Reading(*found, seconds=time.perf_counter() - start))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
