"""Dify's external knowledge API: `POST /retrieval`, as it is documented and as Dify 1.13 sends it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

NO_BEARER, REFUSED, NO_KNOWLEDGE = 1001, 1002, 2001
LONGEST_QUERY = 4000  # characters; of a longer one the beginning counts

_EMPTY, _NOT_EMPTY = "empty", "not empty"
_DEFAULT_TOP_K = 4
# Of each operator: the field's text and one value.
_TEXT: dict[str, Callable[[str, str], bool]] = {
    "is": operator.eq,
    "=": operator.eq,
    "in": operator.eq,
    "contains": operator.contains,
    "start with": str.startswith,
    "end with": str.endswith,
}
_NOT_TEXT = {"is not": "is", "≠": "=", "not in": "in", "not contains": "contains"}
_NUMBER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "before": operator.lt,
    ">": operator.gt,
    "after": operator.gt,
    "≤": operator.le,
    "<=": operator.le,
    "≥": operator.ge,
    ">=": operator.ge,
}
_COMPARISONS = (*_TEXT, *_NOT_TEXT, *_NUMBER, _EMPTY, _NOT_EMPTY)

_Text = Annotated[str, Field(max_length=1000)]
Scalar = _Text | int | float


def _top_k(value: object) -> object:
    return _DEFAULT_TOP_K if value is None else value


def _compare(compare: Callable[[float, float], bool], text: str, value: str) -> bool:
    """Compare as numbers; what is no number passes no comparison."""
    try:
        return compare(float(text), float(value))
    except ValueError:
        return False


class RetrievalSetting(BaseModel):
    top_k: Annotated[int, Field(ge=1, le=200, examples=[5]), BeforeValidator(_top_k)] = _DEFAULT_TOP_K
    score_threshold: float | None = Field(default=None, ge=0, le=1, examples=[0.5])


class Condition(BaseModel):
    """On one field of a record (`document`, `document_name`, `document_id` and `title` all hold the document's name;
    `doc_id`, `kb_name`). A record without that field passes no comparison but `empty`. A condition without a value
    asks nothing, but for `empty` and `not empty`. Of several values one has to fit, with a `not` none."""

    name: _Text | Annotated[list[_Text], Field(max_length=20)] = Field(examples=["document"])
    comparison_operator: str = Field(examples=["start with"], description=", ".join(_COMPARISONS))
    value: Scalar | Annotated[list[Scalar], Field(max_length=50)] | None = Field(default=None, examples=["faq/"])

    @property
    def asks(self) -> bool:
        return self.value is not None or self.comparison_operator in (_EMPTY, _NOT_EMPTY)

    def holds(self, fields: Mapping[str, str]) -> bool:
        names = [self.name] if isinstance(self.name, str) else dict.fromkeys(self.name)
        return any(self._holds_for(fields.get(name)) for name in names)

    def _holds_for(self, text: str | None) -> bool:
        comparison = self.comparison_operator
        if comparison in (_EMPTY, _NOT_EMPTY):
            return (not text) == (comparison == _EMPTY)
        if text is None:
            return False
        if comparison in _NUMBER:
            return any(_compare(_NUMBER[comparison], text, value) for value in self._values)
        compare = _TEXT[_NOT_TEXT.get(comparison, comparison)]
        return any(compare(text, value) for value in self._values) != (comparison in _NOT_TEXT)

    @cached_property
    def _values(self) -> list[str]:
        if isinstance(self.value, str) and self.comparison_operator in ("in", "not in"):
            return [value.strip() for value in self.value.split(",") if value.strip()]
        values = self.value if isinstance(self.value, list) else [self.value]
        return [f"{value:g}" if isinstance(value, float) else str(value) for value in values]


class MetadataCondition(BaseModel):
    """`logical_operator`: null is `and`; `conditions`: null is none."""

    logical_operator: Literal["and", "or"] | None = "and"
    conditions: Annotated[list[Condition], Field(max_length=20)] | None = None

    @property
    def asked(self) -> list[Condition]:
        """The conditions that ask something."""
        return [condition for condition in self.conditions or [] if condition.asks]

    def unsupported(self) -> str:
        """Say in one line what cannot be honoured; "" when everything can."""
        for condition in self.conditions or []:
            if condition.comparison_operator not in _COMPARISONS:
                return f"metadata_condition: {condition.comparison_operator!r} is none of {', '.join(_COMPARISONS)}"
        return ""

    def holds(self, fields: Mapping[str, str]) -> bool:
        """Return whether a record with these fields passes; every one does when nothing is asked."""
        results = [condition.holds(fields) for condition in self.asked]
        return not results or (any(results) if self.logical_operator == "or" else all(results))


class DifyRequest(BaseModel):
    """`knowledge_id`: `tenant/knowledge base`, or the knowledge base alone with an access key. A query without a letter
    or digit finds nothing."""

    knowledge_id: str = Field(min_length=1, max_length=401, examples=["fivedoctors/default"])
    query: str | None = Field(examples=["鱼油怎么吃"], description=f"the first {LONGEST_QUERY} characters count")
    retrieval_setting: RetrievalSetting
    metadata_condition: MetadataCondition | None = None


class DifyRecord(BaseModel):
    """`score`: the reranker's, which the threshold is held against. `title` and `metadata.document_id`: the document's
    name; Dify's workflow node needs the latter."""

    content: str
    score: float
    title: str
    metadata: dict[str, Any] = Field(
        examples=[
            {
                "document_id": "0-usage",
                "doc_id": "0-usage",
                "document": "0-usage",
                "kb_name": "default",
                "fused_score": 0.97,
            }
        ]
    )


class DifyResponse(BaseModel):
    records: list[DifyRecord]


class DifyProblem(BaseModel):
    error_code: int = Field(examples=[NO_KNOWLEDGE], description="1001, 1002, 2001, or the HTTP status")
    error_msg: str = Field(examples=["the knowledge base does not exist"])


class DifyFailure(Exception):
    """Answered as a `DifyProblem`."""

    def __init__(self, status: int, code: int, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
