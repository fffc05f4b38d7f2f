"""Request and response of `POST /api/chat/general_rag`. Other packages know this service by HTTP only."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_SPEAKER_LABEL = re.compile(r"^(?:用户|助手)[:：]\s*", re.MULTILINE)

SPEAKERS = {"user": "用户", "human": "用户", "assistant": "助手", "ai": "助手"}


class GeneralRagRequest(BaseModel):
    """One retrieval. Unknown fields are ignored, so that older and newer clients both work.

    `query` is the user's own wording; the passages are found with `rewritten_query` as it stands when it is given
    (blank counts as absent) and scored against `query` and the context. `user_profile` and `history_summary` are
    additions to the contract.
    """

    model_config = ConfigDict(str_strip_whitespace=True)

    query: str = Field(min_length=1, max_length=4000)
    tenant_id: str = Field(min_length=1)
    kb_name: str = Field(default="default", min_length=1)
    history: str = ""
    top_k: int = Field(default=5, ge=1, le=200)
    score_threshold: float = Field(default=0.5, ge=0, le=1)
    rewritten_query: str | None = Field(default=None, max_length=4000)
    user_profile: str = ""
    history_summary: str = ""

    @field_validator("history", mode="before")
    @classmethod
    def _history_as_lines(cls, value: Any) -> Any:
        """A list of {role, content} becomes lines of `用户: …` / `助手: …`; system and tool turns are no dialogue."""
        if value is None:
            return ""
        if not isinstance(value, list):
            return value
        lines = []
        for turn in value:
            if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
                raise ValueError("each turn needs a role and a content string")
            speaker = SPEAKERS.get(str(turn.get("role")).lower())
            if speaker:
                lines.append(f"{speaker}: {' '.join(turn['content'].split())}")
        return "\n".join(lines)

    @field_validator("user_profile", "history_summary", mode="before")
    @classmethod
    def _absent_is_empty(cls, value: Any) -> Any:
        return "" if value is None else value

    @property
    def context(self) -> str:
        """Profile, summary and what was said in the history (without the speakers' labels), a line each or more."""
        said = _SPEAKER_LABEL.sub("", self.history)
        return "\n".join(part for part in (self.user_profile, self.history_summary, said) if part)


class RecalledPassage(BaseModel):
    """One hit. `score`: share of the best possible fused rank score, (0, 1]. `reranker_score`: [0, 1]."""

    content: str
    score: float
    reranker_score: float
    doc_id: str


class RagData(BaseModel):
    """`rewrite_source` tells where `rewritten_query` came from; `rewrite_failure` why the service's own rewriter
    was not used ("" when it was not asked or answered)."""

    user_profile: str
    history_summary: str
    rewritten_query: str
    recall: list[RecalledPassage]
    rewrite_source: Literal["given", "rewriter", "query"]
    rewrite_failure: str
    reranker: str


class GeneralRagResponse(BaseModel):
    data: RagData
