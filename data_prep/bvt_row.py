"""One row of a BVT batch test (`test_sft.xlsx`, spec 1): its columns, their order and their Chinese names."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.normalise import normalise_line
from reward.records import Context, Hit, Metadata, first_problem

# Spec 1's columns in spec 1's order; what we add comes after them.
COLUMNS = (
    "original_query",
    "user_profile",
    "history_summary",
    "rewritten_query",
    "recall_results",
    "recall_count",
    "top1_score",
    "avg_top3_score",
    "success",
    "query_id",
    "history_context",
    "slices",
    "error",
)

ALIASES = {
    "query": "original_query",
    "原始查询": "original_query",
    "用户画像": "user_profile",
    "历史摘要": "history_summary",
    "改写查询": "rewritten_query",
    "召回结果": "recall_results",
    "召回数量": "recall_count",
    "top1分数": "top1_score",
    "前三平均分": "avg_top3_score",
    "是否成功": "success",
    "对话历史": "history_context",
}

EXCEL_CELL_LIMIT = 32_767  # characters; a longer text is cut by whoever wrote the workbook
_TRUE = {"true", "1", "yes", "y", "是", "成功"}
_FALSE = {"false", "0", "no", "n", "否", "失败"}


class BadRow(Exception):
    """A row that cannot be used. `field: what is wrong with it`."""


class BvtRow(BaseModel):
    """`number` is the row in the source file, from 1, headings counted. Scores lie in [0, 1]; `None` = not recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    original_query: str
    user_profile: str = ""
    history_summary: str = ""
    rewritten_query: str = ""
    recall_results: tuple[Hit, ...] = ()
    recall_count: int | None = None
    top1_score: float | None = None
    avg_top3_score: float | None = None
    success: bool = False
    query_id: str = ""
    history_context: str = ""
    slices: tuple[str, ...] = ()
    error: str = ""

    @property
    def context(self) -> Context:
        return Context(
            user_profile=self.user_profile,
            history_summary=self.history_summary,
            history_context=self.history_context,
        )

    def metadata(self, tenant_id: str, split: Literal["train", "val", "test"]) -> Metadata:
        return Metadata(
            tenant_id=tenant_id,
            top1_score=self.top1_score,
            recall_count=self.recall_count,
            split=split,
            slices=self.slices,
        )


def parse_row(number: int, values: dict[str, Any]) -> BvtRow:
    """Raises BadRow. A column that the file lacks keeps its default."""
    known = {name: values[name] for name in COLUMNS if name in values}
    parsed: dict[str, Any] = {"number": number}
    for name, cell in known.items():
        try:
            parsed[name] = _PARSERS.get(name, _text)(cell)
        except ValueError as problem:
            raise BadRow(f"{name}: {problem}") from None
    if not normalise_line(parsed.get("original_query", "")):
        raise BadRow("original_query: empty")
    return BvtRow(**parsed)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list | dict):
        raise ValueError(f"expected text, found {type(cell).__name__}")
    text = str(cell)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate)") from None
    return text


def _number(cell: object) -> float | None:
    text = _text(cell).strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"not a number: {text[:40]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"not a number: {text[:40]!r}")
    return value


def _count(cell: object) -> int | None:
    value = _number(cell)
    if value is not None and (value < 0 or value != int(value)):
        raise ValueError(f"not a count: {value:g}")
    return None if value is None else int(value)


def _truth(cell: object) -> bool:
    text = _text(cell).strip().lower().removesuffix(".0")
    if text not in _TRUE | _FALSE:
        raise ValueError(f"neither true nor false: {text[:40]!r}")
    return text in _TRUE


def _hits(cell: object) -> tuple[Hit, ...]:
    if isinstance(cell, str):
        if not cell.strip() or len(cell) >= EXCEL_CELL_LIMIT:
            return ()  # nothing recorded, or JSON cut off by Excel's limit: the scores stand in columns of their own
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise ValueError(f"not JSON ({error})") from None
    if cell is None:
        return ()
    if not isinstance(cell, list) or not all(isinstance(hit, dict) for hit in cell):
        raise ValueError("expected a JSON list of objects")
    try:
        return tuple(Hit.model_validate({k: hit.get(k) for k in Hit.model_fields}) for hit in cell)
    except ValidationError as error:
        raise ValueError(f"a hit's {first_problem(error)}") from None


def _slices(cell: object) -> tuple[str, ...]:
    names = cell if isinstance(cell, list) else _text(cell).replace("，", ",").split(",")
    return tuple(str(name).strip() for name in names if str(name).strip())


_PARSERS: dict[str, Any] = {
    "recall_results": _hits,
    "recall_count": _count,
    "top1_score": _number,
    "avg_top3_score": _number,
    "success": _truth,
    "slices": _slices,
}
