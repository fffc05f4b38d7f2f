"""Requests and answers of searching and asking. Other packages know this service by HTTP only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from plain_text.asked import context_text
from rag.retrieval.channels import Channels
from rag.retrieval.search_request import ExpansionKind

_IN_A_TURN = {"content", "tool_calls", "function_call"}  # a turn that calls a tool may leave its content out
_NO_TURN = "each turn needs a role and a content string"

LONGEST_CONTEXT = 100_000  # characters
MOST_TURNS = 1000
DEEPEST_PARTS = 8
MOST_LINES = 8
LONGEST_LINE = 2000  # characters
SPEAKERS = {"user": "用户", "human": "用户", "assistant": "助手", "ai": "助手"}

Query = Annotated[str, Field(min_length=1, max_length=4000, examples=["鱼油怎么吃"])]
TenantId = Annotated[str, Field(min_length=1, max_length=200, examples=["fivedoctors"])]
KnowledgeBaseName = Annotated[str, Field(min_length=1, max_length=200, examples=["default"])]


def _said(content: Any, depth: int = 0) -> str:
    """Return the text of a turn's content as OpenAI's API has it: a text, parts of which some are texts, or null.

    Raises:
        ValueError: it is something else.
    """
    if depth > DEEPEST_PARTS:
        raise ValueError(_NO_TURN)
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            if len(content) > MOST_TURNS:
                raise ValueError(f"more than {MOST_TURNS} parts in a turn")
            return " ".join(_said(part, depth + 1) for part in content)
        case {"text": text} | {"text": {"value": text}} if isinstance(text, str | None):
            return text or ""
        case {"text": {"value": str(text)}}:
            return text
        case {"type": _}:  # an image, a file, a tool call
            return ""
    raise ValueError(_NO_TURN)


class ConversationRequest(BaseModel):
    """What a user asks, of which tenant, and what was said before. Unknown fields are ignored, so that older and
    newer clients both work. `tenant_id` may be left out with an access key, which names its tenant, and where there
    is one tenant only."""

    model_config = ConfigDict(str_strip_whitespace=True)

    query: Query
    tenant_id: TenantId | None = None
    kb_name: KnowledgeBaseName = "default"
    history: str = Field(
        default="",
        max_length=LONGEST_CONTEXT,
        description="lines of `用户: …` / `助手: …`, or a list of {role, content}",
    )
    user_profile: str = Field(default="", max_length=LONGEST_CONTEXT)
    history_summary: str = Field(default="", max_length=LONGEST_CONTEXT)
    channels: Channels = Field(default=Channels(), description="switches; what is left out is as the tenant has it")

    @field_validator("history", mode="before")
    @classmethod
    def _history_as_lines(cls, value: Any) -> Any:
        """Turn a list of {role, content} into lines of `用户: …` / `助手: …`. System and tool turns are no dialogue,
        nor are turns without text. Content is a text or a list of parts, of which the texts count."""
        if value is None:
            return ""
        if not isinstance(value, list):
            return value
        if len(value) > MOST_TURNS:
            raise ValueError(f"more than {MOST_TURNS} turns")
        lines = []
        for turn in value:
            if not isinstance(turn, dict) or not _IN_A_TURN & turn.keys():
                raise ValueError(_NO_TURN)
            speaker = SPEAKERS.get(str(turn.get("role")).lower())
            said = " ".join(_said(turn.get("content")).split())
            if speaker and said:
                lines.append(f"{speaker}: {said}")
        return "\n".join(lines)

    @field_validator("user_profile", "history_summary", mode="before")
    @classmethod
    def _absent_is_empty(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("channels", mode="before")
    @classmethod
    def _absent_is_unset(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def context(self) -> str:
        """What a reranker reads beside the query."""
        return context_text(self.user_profile, self.history_summary, self.history)


class ExpansionLine(BaseModel):
    """A typed line beside the query. `lex` joins the keyword channel; `vec` and `hyde` join the dense one, `hyde` in
    the form of a passage."""

    model_config = ConfigDict(str_strip_whitespace=True, extra="forbid")

    kind: ExpansionKind
    text: str = Field(min_length=1, max_length=LONGEST_LINE)


class GeneralRagRequest(ConversationRequest):
    """One retrieval. `query` is the original wording; the passages are found with `rewritten_query` unchanged when
    it is given (blank counts as absent) and scored against `query` and the context. `user_profile`, `history_summary`,
    `channels`, `debug`, `keyword_query` and `expansions` are additions to the contract."""

    top_k: int = Field(default=5, ge=1, le=200)
    score_threshold: float = Field(default=0.5, ge=0, le=1, description="least `reranker_score` of a hit")
    rewritten_query: str | None = Field(default=None, max_length=4000)
    keyword_query: str | None = Field(
        default=None,
        max_length=4000,
        description="the keyword channel's text where a rewrite has two; `rewritten_query` is then the dense one's",
    )
    expansions: list[ExpansionLine] = Field(
        default=[],
        max_length=MOST_LINES,
        description="typed lines, searched beside the query; then neither rewriter nor query2doc is asked",
        examples=[[{"kind": "lex", "text": "鱼油 用量"}, {"kind": "vec", "text": "鱼油每天吃几粒"}]],
    )
    debug: bool = Field(default=False, description="adds each hit's rank and score in each channel")

    @field_validator("expansions", mode="before")
    @classmethod
    def _absent_is_none(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("keyword_query")
    @classmethod
    def _of_a_pair(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and not info.data.get("rewritten_query"):
            raise ValueError("rewritten_query is missing beside it")
        return value or None


class ChannelRank(BaseModel):
    rank: int = Field(description="from 1")
    score: float = Field(description="the channel's own, comparable within it only")


class RecalledPassage(BaseModel):
    """One hit. `score`: the fused one in [0, 1], 1 for the best of every channel. `reranker_score`: [0, 1]. `channels`
    and `matched_question` (the question that led to the passage, if one did) come with `debug` only."""

    content: str
    score: float
    reranker_score: float
    doc_id: str
    channels: dict[str, ChannelRank] | None = None
    matched_question: str | None = None


ChannelStates = Annotated[
    dict[str, str],
    Field(
        description="of dense, keyword, doc2query, query2doc, rerank, rewrite: on | off | unavailable: why | "
        "fell back: why",
        examples=[{"dense": "on", "query2doc": "fell back: no answer within 0.3 s"}],
    ),
]


class RagData(BaseModel):
    """`rewrite_source` tells where `rewritten_query` came from; `rewrite_failure` why the service's own rewriter
    was not used ("" when it was not asked or answered). `pseudo_document` comes with `debug` only, `keyword_query`
    with a rewrite in two texts, `expansions` where the request has some."""

    user_profile: str
    history_summary: str
    rewritten_query: str
    recall: list[RecalledPassage]
    rewrite_source: Literal["given", "rewriter", "query"]
    rewrite_failure: str
    reranker: str
    fusion: str = Field(
        description="how the channels were fused; empty where nothing is indexed",
        examples=["tm2c2: fitted 3f2a9c01 (dense 0.6, questions 1, rerank 1)"],
    )
    channels: ChannelStates
    pseudo_document: str | None = None
    keyword_query: str | None = None
    expansions: dict[str, str] | None = Field(
        default=None,
        description="of each kind that was sent: searched | not searched: why",
        examples=[{"lex": "searched", "vec": "not searched: dense off"}],
    )


class GeneralRagResponse(BaseModel):
    data: RagData


class AskRequest(ConversationRequest):
    """One question to be answered from the knowledge base."""

    top_k: int = Field(default=5, ge=1, le=20, description="passages that the answer may use")
    stream: bool = Field(default=False, description="answer as server-sent events")


class Context(BaseModel):
    """A passage as the answer cites it: [n]."""

    n: int
    doc_id: str
    content: str
    score: float
    reranker_score: float


class Asked(BaseModel):
    """What was found; the event `contexts` of a stream."""

    query: str
    rewritten_query: str
    pseudo_doc: str = Field(description="the query as a technical note, by which the passages were found; often empty")
    contexts: list[str] = Field(description="the texts of the passages, as the answer cites them: [1] is the first")
    passages: list[Context] = Field(description="the same, with ids and scores")
    channels: ChannelStates


class Answered(BaseModel):
    """What was answered; the event `done` of a stream."""

    answer: str = Field(description="未知 when nothing was found or the material holds no answer", examples=["未知"])
    citations: list[int] = Field(description="numbers of the contexts that the answer cites, in its order")
    answer_failure: str = Field(description="why there is no answer; then `answer` is empty or breaks off")


class AskResponse(Asked, Answered):
    pass


class FeedbackRequest(BaseModel):
    """What a person did with one hit."""

    model_config = ConfigDict(str_strip_whitespace=True)

    tenant_id: TenantId | None = None
    kb_name: KnowledgeBaseName = "default"
    query: Query
    doc_id: str = Field(min_length=1, max_length=1000, description="of the hit", examples=["0-usage"])
    clicked: bool = Field(description="clicked, or thumbs up; false: seen and passed over, or thumbs down")
    rewritten_query: str = Field(default="", max_length=4000)
    position: int | None = Field(default=None, ge=1, le=1000, description="in the list, from 1")
    request_id: str = Field(default="", max_length=64, description="X-Request-ID of the search")


class KnowledgeBaseHealth(BaseModel):
    """A knowledge base and what made its index; the index's fields are null before the first build."""

    tenant_id: str
    kb_name: str
    documents: int
    passages: int
    questions: int
    revision: int = Field(description="counts its writes")
    version: int | None = None
    embedder_id: str | None = None
    embedder_dimension: int | None = None
    tokenizer_id: str | None = None
    store_id: str | None = None
    versions: dict[str, str] | None = None
    created_at: str | None = None
    reranker: str
    reranker_problem: str = Field(description='why the one that was set last is not in use; "" when it is')
    fusion: str | None = Field(default=None, description="as answers name it")


class Health(BaseModel):
    """With `--auth keys` only the caller's own knowledge bases are listed."""

    status: Literal["ok", "draining"]
    rewriter: bool
    language_model: str | None
    knowledge_bases: list[KnowledgeBaseHealth]
