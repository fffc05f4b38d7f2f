"""Dify's external knowledge API: `POST /retrieval`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, Field

from rag.service.contracts import Query

NO_BEARER, REFUSED, NO_KNOWLEDGE = 1001, 1002, 2001

_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "is": lambda name, value: name == value,
    "is not": lambda name, value: name != value,
    "contains": lambda name, value: value in name,
    "not contains": lambda name, value: value not in name,
    "start with": lambda name, value: name.startswith(value),
    "end with": lambda name, value: name.endswith(value),
}


class RetrievalSetting(BaseModel):
    top_k: int = Field(ge=1, le=200, examples=[5])
    score_threshold: float | None = Field(default=None, ge=0, le=1, examples=[0.5])


class Condition(BaseModel):
    """On the document's name alone; `name` is ["document"]."""

    name: list[str] = Field(examples=[["document"]])
    comparison_operator: str = Field(examples=["start with"], description=", ".join(_COMPARISONS))
    value: str | None = Field(default=None, examples=["faq/"])


class MetadataCondition(BaseModel):
    logical_operator: Literal["and", "or"] = "and"
    conditions: list[Condition] = []

    def unsupported(self) -> str:
        """Say in one line what cannot be honoured; "" when everything can."""
        for condition in self.conditions:
            if condition.name != ["document"]:
                return f"metadata_condition: only the field 'document' can be filtered by, not {condition.name}"
            if condition.comparison_operator not in _COMPARISONS or condition.value is None:
                known = ", ".join(_COMPARISONS)
                return f"metadata_condition: {condition.comparison_operator!r} is none of {known} with a value"
        return ""

    def holds(self, document: str) -> bool:
        """Return whether a document of that name passes; every one does when there is no condition."""
        results = [_COMPARISONS[c.comparison_operator](document, c.value or "") for c in self.conditions]
        return not results or (all(results) if self.logical_operator == "and" else any(results))


class DifyRequest(BaseModel):
    """`knowledge_id`: `tenant/knowledge base`, or the knowledge base alone with an access key."""

    knowledge_id: str = Field(min_length=1, max_length=401, examples=["fivedoctors/default"])
    query: Query
    retrieval_setting: RetrievalSetting
    metadata_condition: MetadataCondition | None = None


class DifyRecord(BaseModel):
    """`score`: the reranker's, which the threshold is held against. `title`: the document's name."""

    content: str
    score: float
    title: str
    metadata: dict[str, Any] = Field(
        examples=[{"doc_id": "0-usage", "document": "0-usage", "kb_name": "default", "fused_score": 0.97}]
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
