"""One retrieval: rewrite, expansion, channels, fusion, relevance, in this order, each as its switch says.

The channels search with the rewritten query, expanded by the request's typed lines or, when it is on, by Query2Doc;
relevance is judged by the original query and context. `score` is the fused one of `rag.retrieval.fusion`: 1 for the
best passage of every channel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase, RowKey, StoredPassage
from rag.catalogue.token_statistics import TokenStatistics
from rag.documents.records import IngestError
from rag.documents.token_process import TokenProcess
from rag.documents.tokenizer import remember_token_ids, remembers_token_ids
from rag.fair_shares import REST, FairShares
from rag.index.engine import ScoredRow
from rag.index.indexer import Indexer, OpenVersion
from rag.models.failure import ModelFailure
from rag.models.language_model import LanguageModel
from rag.models.reranker import Reranker, RerankerChoice
from rag.models.rewriter import Rewrite, Rewriter
from rag.retrieval.channel_search import ChannelTexts, channel_texts, embedded_query, keyword_weights
from rag.retrieval.channels import CHANNELS, GIVEN, OFF, ON, fell_back, unavailable
from rag.retrieval.fitted_fusion import FusionInForce, fusion_in_force
from rag.retrieval.fusion import Candidates, ChannelRows, Found, final_order, fuse_channels
from rag.retrieval.lexical_reranker import CONTEXT_LENGTH, LexicalReranker
from rag.retrieval.search_request import Hit, Retrieval, SearchRequest

CHANNEL_DEPTH = 30
# A search is done again when documents were switched during it.
_MOST_ATTEMPTS = 20
_MOST_ROWS = 10_000
# A longer query is as much text as a pseudo-document would be.
SHORT_QUERY = 60
# Query, pseudo-document and context are read beside the event loop when they are longer: 1,000 characters take up to
# 20 ms.
SHORT_TEXT = 500  # characters


class Retriever:
    def __init__(
        self,
        catalogue: Catalogue,
        indexer: Indexer,
        rewriters: Mapping[str, Rewriter] | None = None,
        default_rewriter: Rewriter | None = None,
        language_model: LanguageModel | None = None,
        reranker: Reranker | None = None,
        rerankers: RerankerChoice | None = None,
        rerank_timeout: float | None = None,
        rerank_part: float = 1.0,
        query2doc_timeout: float = 0.3,
        depth: int = CHANNEL_DEPTH,
        searches: FairShares | None = None,
    ):
        """`rewriters`: by tenant; others have the default one. `rerankers` chooses by tenant, else all have `reranker`.
        `rerank_timeout`, `query2doc_timeout` in seconds. `rerank_part`: `FusionWeights.rerank` where none was fitted.
        `depth`: candidates of each channel, more when a request wants more hits. `searches`: their turns."""
        self._catalogue = catalogue
        self._indexer = indexer
        self._rewriters = rewriters or {}
        self._default_rewriter = default_rewriter
        self._language_model = language_model
        self._reranker, self._rerankers = reranker, rerankers
        self._rerank_timeout = rerank_timeout
        self._rerank_part = rerank_part
        self._query2doc_timeout = query2doc_timeout
        self._depth = depth
        self._lexical: dict[int, tuple[int, LexicalReranker]] = {}
        self._searches, self._long_texts = searches or FairShares(1, REST), FairShares(1, REST)
        self._token_process = TokenProcess()

    async def retrieve(self, kb: KnowledgeBase, request: SearchRequest) -> Retrieval:
        """Return what the knowledge base holds for the request, best first.

        Raises:
            IngestError: its index was made with another embedder, tokenizer or engine than this service's.
        """
        # Every channel says in the answer what became of it: on, off, or why it could not work.
        states = {name: ON if request.channels.wants(name) else OFF for name in CHANNELS}
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        rewrite = await self._rewrite(request, states)
        texts = channel_texts(rewrite, await self._expand(rewrite.text, request, states), request.expansions)
        seconds["models"] = time.perf_counter() - started

        # Search with what the models made of the query; where nothing is indexed there is nothing to rank.
        started = time.perf_counter()
        opened = self._indexer.open(kb)
        if opened is None:
            for name in ("dense", "keyword", "doc2query", "rerank"):
                states[name] = unavailable("nothing is indexed yet")
            return Retrieval([], rewrite, texts.pseudo_document, states, "", "", seconds)
        depth = max(self._depth, request.top_k)
        reranker = self._rerankers.of(kb.tenant_id) if self._rerankers is not None else self._reranker
        await self._read_long_texts(kb, opened, request, texts)
        dense = await embedded_query(opened.embedder, texts, states) if states["dense"] == ON else None
        fusion = self._fusion(kb, opened, reranker)
        async with self._turn(kb.tenant_id):
            searched = await self._search(kb, opened, texts, dense, depth, states)
            found = searched.found(fusion.weights)
            fused = fuse_channels(found, fusion.weights)
            passages = {passage.id: passage for passage in searched.behind.values()}
            candidates = list(fused)[:depth]
            lexical = self._lexical_reranker(kb, opened)
            tokens = [passages[i].token_ids for i in candidates]
            annotated = [] if reranker else lexical.score(request.query, request.context, tokens).tolist()
        seconds["search"] = time.perf_counter() - started

        # A cross-encoder has its part of the order. The lexical scorer has none: it would undo what rewriting won.
        started = time.perf_counter()
        judged = await self._rerank(reranker, request, [passages[i].content for i in candidates], states)
        if judged is not None and reranker is not None:
            scored = dict(zip(candidates, judged, strict=True))
            candidates = final_order(fused, scored, fusion.weights)
            scores = [scored[i] for i in candidates]
            judge = reranker.id
        else:
            scores = annotated or lexical.score(request.query, request.context, tokens).tolist()
            judge = lexical.id
        seconds["rerank"] = time.perf_counter() - started

        # Cut by the reported, rounded score: what was reported can then be given as a threshold.
        kept = [
            (i, round(score, 6))
            for i, score in zip(candidates, scores, strict=True)
            if round(score, 6) >= request.score_threshold  # as reported, so that a reported score is a valid threshold
        ][: request.top_k]
        questions = self._matched_questions(kb, found, [i for i, _ in kept]) if request.debug else {}
        hits = [
            Hit(
                doc_id=passages[i].key,
                document=passages[i].document,
                content=passages[i].content,
                score=round(fused[i], 6),
                reranker_score=score,
                channels={name: one.ranks[i] for name, one in found.items() if i in one.ranks},
                matched_question=questions.get(i),
            )
            for i, score in kept
        ]
        return Retrieval(hits, rewrite, texts.pseudo_document, states, judge, fusion.name, seconds)

    def close(self) -> None:
        self._token_process.close()

    async def candidates(self, kb: KnowledgeBase, query: str) -> Candidates:
        """Return what all channels find for the query as it is, before it is fused.

        Raises:
            IngestError: nothing is indexed, or as `retrieve`.
            ModelFailure: the embedder gave no usable answer.
        """
        opened = self._indexer.open(kb)
        if opened is None:
            raise IngestError(f"{kb.tenant_id}/{kb.name}: nothing is indexed yet")
        states = dict.fromkeys(CHANNELS, ON)
        texts = ChannelTexts(query, query)
        dense = await embedded_query(opened.embedder, texts, states)
        found = await self._search(kb, opened, texts, dense, self._depth, states)
        if dense is None and opened.embedder.dimension:
            raise ModelFailure(states["dense"].removeprefix(fell_back("")))
        return found

    async def _rewrite(self, request: SearchRequest, states: dict[str, str]) -> Rewrite:
        """Return the given rewrite unchanged, else the tenant's rewriter's, else the query."""
        if request.rewritten_query:
            states["rewrite"] = GIVEN
            return Rewrite(request.rewritten_query, "given", keyword_query=request.keyword_query)
        if request.expansions:  # a model has written for this query already
            states["rewrite"] = GIVEN
            return Rewrite(request.query, "query")
        rewriter = self._rewriters.get(request.tenant_id, self._default_rewriter)
        if states["rewrite"] == OFF:
            return Rewrite(request.query, "query")
        if rewriter is None:
            states["rewrite"] = unavailable("no rewriter is configured")
            return Rewrite(request.query, "query")
        rewrite = await rewriter.rewrite(
            request.query, request.history, request.tenant_id, request.user_profile, request.history_summary
        )
        if rewrite.failure:
            states["rewrite"] = fell_back(rewrite.failure)
        return rewrite

    async def _expand(self, query: str, request: SearchRequest, states: dict[str, str]) -> str:
        """Imagine what a passage that answers the query might say (Query2Doc); "" when there is none."""
        if request.expansions:
            states["query2doc"] = GIVEN
            return ""
        if states["query2doc"] == OFF:
            return ""
        if self._language_model is None:
            states["query2doc"] = unavailable("no language model is configured")
            return ""
        if len(query) > SHORT_QUERY:
            states["query2doc"] = OFF
            return ""
        try:
            return await self._language_model.pseudo_document(query, request.context, self._query2doc_timeout)
        except ModelFailure as failure:
            states["query2doc"] = fell_back(str(failure))
            return ""

    async def _search(
        self,
        kb: KnowledgeBase,
        opened: OpenVersion,
        texts: ChannelTexts,
        dense: NDArray[np.float32] | None,
        depth: int,
        states: dict[str, str],
    ) -> Candidates:
        """Return what each channel that is on found."""
        with_questions = states["doc2query"] == ON and opened.has_questions
        if states["doc2query"] == ON and not opened.has_questions:
            states["doc2query"] = unavailable("no questions are indexed")
        keywords = keyword_weights(texts) if states["keyword"] == ON else None
        for _ in range(_MOST_ATTEMPTS):
            revision = self._catalogue.applied_revision(opened.version.id)
            by_dense, by_keyword, limit, behind = await self._rows(
                kb, opened, dense, keywords, depth, with_questions, revision
            )
            # Documents were switched meanwhile: what was found may be gone, and what replaced it was not looked for.
            if self._catalogue.applied_revision(opened.version.id) == revision:
                break
        found = {}
        if keywords is not None:
            found["keyword"] = ChannelRows(by_keyword, 0.0, len(by_keyword) >= limit)
        if dense is not None:
            found["dense"] = ChannelRows(by_dense, float(dense @ opened.mean_vector), len(by_dense) >= limit)
        return Candidates(found, behind, depth)

    @asynccontextmanager
    async def _turn(self, tenant_id: str) -> AsyncIterator[None]:
        """Wait for the tenant's turn where searches run on the event loop: one of them a round."""
        if self._indexer.engine.shared:
            yield
            return
        async with self._searches.place(tenant_id):
            await asyncio.sleep(0)
            yield

    async def _read_long_texts(
        self, kb: KnowledgeBase, opened: OpenVersion, request: SearchRequest, texts: ChannelTexts
    ) -> None:
        """Tokenise long texts in the process for it, or in a thread while there is none: those who ask for the tokens
        later find them in their caches."""
        context = request.context[-CONTEXT_LENGTH:]
        read_texts = (request.query, *texts.tokenised, context)
        if sum(map(len, read_texts)) <= SHORT_TEXT:
            return
        lexical = self._lexical_reranker(kb, opened)

        def read() -> None:
            for text in set(read_texts):
                if len(text) <= SHORT_TEXT or remembers_token_ids(text):
                    continue
                if (ids := self._token_process.token_ids(text)) is not None:
                    remember_token_ids(text, ids)
            keyword_weights(texts)
            lexical.prepare(request.query, request.context)

        async with self._long_texts.place(kb.tenant_id):
            await asyncio.to_thread(read)

    async def _rows(
        self,
        kb: KnowledgeBase,
        opened: OpenVersion,
        dense: NDArray[np.float32] | None,
        keywords: tuple[list[int], list[float]] | None,
        depth: int,
        with_questions: bool,
        revision: int | None,
    ) -> tuple[list[ScoredRow], list[ScoredRow], int, dict[RowKey, StoredPassage]]:
        """Return what the dense and the keyword channel found, how many rows each was asked for, and the passages
        behind them as of the revision."""
        # Several keys lead to one passage: what is left after cutting repetitions should still be `depth`.
        limit = 2 * depth if with_questions else depth
        while True:
            channels = await self._indexer.engine.search(opened.space, dense, keywords, limit, with_questions)
            rows = [RowKey(row.row_id, row.is_question) for channel in channels for row in channel]
            behind = self._catalogue.resolve(kb.id, list(dict.fromkeys(rows)), revision)
            # What is not searched yet, or no more, must not crowd out what is.
            hidden = any(key not in behind for key in rows)
            if not hidden or limit >= _MOST_ROWS or all(len(channel) < limit for channel in channels):
                return *channels, limit, behind
            limit *= 4

    async def _rerank(
        self, reranker: Reranker | None, request: SearchRequest, contents: Sequence[str], states: dict[str, str]
    ) -> list[float] | None:
        if states["rerank"] == OFF:
            return None
        if reranker is None:
            states["rerank"] = unavailable("no cross-encoder is configured")
            return None
        if not contents:
            return None
        try:
            async with asyncio.timeout(self._rerank_timeout):
                scores: list[float] = (await reranker.score(request.query, request.context, contents)).tolist()
        except ModelFailure as failure:
            states["rerank"] = fell_back(str(failure))
            return None
        except TimeoutError:
            states["rerank"] = fell_back(f"{reranker.id}: no answer within {self._rerank_timeout:g} s")
            return None
        return scores

    def fusion_name(self, kb: KnowledgeBase, reranker: Reranker | None) -> str | None:
        """Return how its channels are fused, as answers name it; None where nothing is indexed."""
        opened = self._indexer.open(kb)
        return self._fusion(kb, opened, reranker).name if opened else None

    def _fusion(self, kb: KnowledgeBase, opened: OpenVersion, reranker: Reranker | None) -> FusionInForce:
        made, embedder = opened.version.recipe, opened.embedder
        judge = reranker.id if reranker else ""
        weight, part = embedder.dense_weight, self._rerank_part
        return fusion_in_force(kb.fusion, made.embedder_id, made.tokenizer_id, weight, judge, part)

    def _lexical_reranker(self, kb: KnowledgeBase, opened: OpenVersion) -> LexicalReranker:
        known = self._lexical.get(kb.id)
        if known is None or known[0] != opened.version.id:
            known = (opened.version.id, LexicalReranker(TokenStatistics.from_bytes(opened.statistics)))
            self._lexical[kb.id] = known
        return known[1]

    def _matched_questions(
        self, kb: KnowledgeBase, found: Mapping[str, Found], passages: Sequence[int]
    ) -> dict[int, str]:
        """Return the question by which a channel ranked the passage, where it was one; the dense channel's is
        preferred."""
        rows: dict[int, int] = {}
        for one in found.values():
            rows |= {i: one.rows[i].row_id for i in passages if i in one.rows and one.rows[i].is_question}
        texts = self._catalogue.question_texts(kb.id, list(rows.values()))
        return {i: texts[row_id] for i, row_id in rows.items() if row_id in texts}
