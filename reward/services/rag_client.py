"""Client of the tenant's retrieval service: `POST {url}/api/chat/general_rag`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from pydantic import TypeAdapter, ValidationError

from guard.personal.masking import mask_id
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.expansion import Line, LineKind
from reward.records.files import first_problem
from reward.records.rewrite_pair import retrieval_fields, rewrite_in
from reward.records.sample import Context, Hit
from reward.services.http_calls import JsonService
from reward.services.refusals import refusal_in
from reward.services.score_scales import origin_of, reranker_failure, to_unit
from reward.settings.services import RagSettings

_HITS = TypeAdapter(list[Hit])


@dataclass(frozen=True)
class RagAnswer:
    """`hits` in the service's order, their `reranker_score` in [0, 1]; the rest as it reports it ("" when absent).

    Args:
        reranker: what the service names as the giver of `reranker_score`.
        origin: what gave the hits their scores: that name, `fused`, or "" where no hit has a score.
        channels: what became of each switch of retrieval; empty for a service without switches.
        unsearched: kinds of the typed lines sent that the service did not search with.
    """

    hits: tuple[Hit, ...]
    rewritten_query: str
    user_profile: str
    history_summary: str
    reranker: str = ""
    origin: str = ""
    channels: Mapping[str, str] = field(default_factory=dict)
    unsearched: tuple[str, ...] = ()


class RagClient:
    """Retrieves for one tenant. Use it from a single event loop; close it with `aclose`."""

    def __init__(self, settings: RagSettings, tenant_id: str):
        self._settings = settings
        self._tenant_id = tenant_id
        self._service = JsonService(settings.url, settings)

    @property
    def calls(self) -> int:
        """Count the HTTP requests sent so far, retries included."""
        return self._service.calls

    async def retrieve(
        self,
        query: str,
        context: Context,
        *,
        rewritten_query: str | None = None,
        top_k: int = 5,
        score_threshold: float = 0.5,
        channels: Mapping[str, bool] | None = None,
        expansions: Sequence[Line] = (),
        priority: float = 0.0,
    ) -> tuple[RagAnswer | ServiceFailure, CallTrace]:
        """Retrieve hits for `query` with `rewritten_query` as it is, or with the service's own rewrite where none is
        given; return them and how the call went. No hit is an answer too. A rewrite in two texts
        (`reward.records.rewrite_pair`) goes out as `rewritten_query` and `keyword_query`.

        Args:
            channels: switches of this project's service (docs/rag.md); None: as the tenant has them.
            expansions: typed lines to search with beside the query. A service that does not say what it did with them
                has failed.
        """
        body: dict[str, Any] = {
            "query": query,
            "tenant_id": self._tenant_id,
            "kb_name": self._settings.kb_name,
            "history": context.history_context,
            "user_profile": context.user_profile,
            "history_summary": context.history_summary,
            "top_k": top_k,
            "score_threshold": score_threshold,
        }
        if rewritten_query is not None:
            body |= retrieval_fields(rewritten_query)
        if channels is not None:
            body["channels"] = dict(channels)
        if expansions:
            body["expansions"] = [{"kind": line.kind, "text": line.text} for line in expansions]
        path = "/api/chat/general_rag"
        answer, trace = await self._service.post(path, body, priority=priority, check=_unequal_scores)
        if not isinstance(answer, ServiceFailure):
            return self._read(answer, dict.fromkeys(line.kind for line in expansions)), trace
        return answer, trace

    def _read(self, answer: dict[str, Any], kinds: Iterable[LineKind] = ()) -> RagAnswer | ServiceFailure:
        data = answer.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("recall"), list):
            return refusal_in(answer, "answer lacks data.recall")
        tenant_id = data.get("tenant_id")
        if tenant_id is not None and tenant_id != self._tenant_id:
            reason = f"data.tenant_id: asked for {self._tenant_id!r}, answered for {tenant_id!r}"
            return ServiceFailure(reason, FailureKind.MALFORMED)
        # Hits as the contract has them, their scores on the declared scale.
        hits = _hits(data["recall"])
        if isinstance(hits, ServiceFailure):
            return hits
        try:
            hits = tuple(self._scaled(hit, row) for row, hit in enumerate(hits, start=1))
        except ValueError as error:
            return ServiceFailure(f"data.recall: {error}", FailureKind.MALFORMED)
        searched = data.get("expansions")
        searched = searched if isinstance(searched, dict) else {}
        if silent := [kind for kind in kinds if not isinstance(searched.get(kind), str)]:
            reason = f"the answer does not say what became of the {', '.join(silent)} lines (data.expansions)"
            return ServiceFailure(reason, FailureKind.MALFORMED)
        reranker = str(data.get("reranker") or "")
        channels = data.get("channels")
        return RagAnswer(
            hits=hits,
            rewritten_query=rewrite_in(data),
            user_profile=str(data.get("user_profile") or ""),
            history_summary=str(data.get("history_summary") or ""),
            reranker=reranker,
            origin=origin_of(hits, reranker) or "",
            channels={str(k): str(v) for k, v in channels.items()} if isinstance(channels, dict) else {},
            unsearched=tuple(kind for kind in kinds if searched[kind] != "searched"),
        )

    def _scaled(self, hit: Hit, row: int) -> Hit:
        """Return the hit with its `reranker_score` in [0, 1].

        Raises:
            ValueError: the score lies outside the scale of `score_scale`.
        """
        if hit.reranker_score is None:
            return hit
        scale = self._settings.score_scale
        try:
            share = to_unit(hit.reranker_score, scale)
        except ValueError as error:
            raise ValueError(f"hit {row}: reranker_{error} (rewriter.tenant.rag.score_scale is {scale})") from None
        return hit if share == hit.reranker_score else hit.model_copy(update={"reranker_score": share})

    async def aclose(self) -> None:
        await self._service.aclose()


def _hits(recall: list[Any]) -> tuple[Hit, ...] | ServiceFailure:
    try:
        hits = _HITS.validate_python(recall, strict=True, extra="ignore")
    except ValidationError as error:
        return ServiceFailure(f"data.recall: {first_problem(error)}", FailureKind.MALFORMED)
    scores = [score for hit in hits for score in (hit.score, hit.reranker_score) if score is not None]
    if not all(map(isfinite, scores)):  # 1e999 reads as infinity
        return ServiceFailure("data.recall: a score is not finite", FailureKind.MALFORMED)
    return tuple(_without_personal_id(hit) for hit in hits)


def _without_personal_id(hit: Hit) -> Hit:
    """Mask an id that holds personal data, as data preparation masks the ids it knows to be relevant."""
    if hit.doc_id is None or (masked := mask_id(hit.doc_id)) == hit.doc_id:
        return hit
    return hit.model_copy(update={"doc_id": masked})


def _unequal_scores(answer: dict[str, Any]) -> ServiceFailure | None:
    """Say what makes the scores of one answer unequal to those of others: a reranker that failed, for all hits or for
    some. Another attempt may find it well again."""
    data = answer.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("recall"), list):
        return None
    if failure := reranker_failure(data):
        return ServiceFailure(f"the service answered without its models: {failure}", FailureKind.MALFORMED)
    # Looked at as they came: whether they are hits at all is read later, once.
    hits = [hit for hit in data["recall"] if isinstance(hit, dict)]
    ranked = sum(hit.get("reranker_score") is not None for hit in hits)
    fused = sum(hit.get("reranker_score") is None and hit.get("score") is not None for hit in hits)
    if len(hits) in (ranked, fused) or ranked == fused == 0:
        return None
    bare = len(hits) - ranked - fused
    reason = f"data.recall: {ranked} hits with a reranker_score, {fused} with a score alone, {bare} with none"
    return ServiceFailure(reason, FailureKind.MALFORMED)
