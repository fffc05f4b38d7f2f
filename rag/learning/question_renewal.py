"""New pseudo-questions for passages that people see and do not want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase, Question, StoredPassage
from rag.documents.tokenizer import query_token_ids
from rag.models.language_model import LanguageModel
from rag.models.reranker import Reranker
from rag.write_questions import lexical_score, model_score, write_questions

# Share of common tokens (Jaccard) from which a question leads the asker of a query to the passage:
# 鱼油怎么吃 has .67 with 鱼油要怎么吃, .38 with 钙片怎么吃; 孕妇能吃鱼油吗 .56 with 孕妇可以吃鱼油吗.
NEAR = 0.5


@dataclass
class Renewal:
    """`questions`: passage id → all model's questions it has now, with their scores, of passages that changed.
    `written`: keys of the passages that the model wrote for; `dropped`: questions too near to what they do not answer;
    `failures`: (passage key, reason); `without`: passages that a model never wrote questions for, left alone. Questions
    scoring below `threshold` are not indexed."""

    questions: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    dropped: int = 0
    without: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    threshold: float = 0.0

    def apply(self, catalogue: Catalogue, kb: KnowledgeBase) -> None:
        """Give another catalogue of the same passages the same questions."""
        for passage_id, questions in self.questions.items():
            catalogue.put_questions(kb.id, passage_id, questions)
        if self.questions:
            catalogue.keep_questions(kb.id, self.threshold)


async def renew_questions(
    catalogue: Catalogue,
    kb: KnowledgeBase,
    unanswered: Mapping[str, Sequence[str]],
    language_model: LanguageModel | None,
    reranker: Reranker | None,
) -> Renewal:
    """Write anew the model's questions of each passage (by key) that does not answer a set of queries, and drop those
    near to such a query. Without a language model, or where it fails, the rest of the questions stays. What was kept
    out of the index for its score stays out, and so do new questions that score no better."""
    renewal = Renewal()
    passages: list[StoredPassage] = []
    for key in unanswered:
        passage = catalogue.passage(kb.id, key)
        if passage is not None and _of_model(catalogue, kb, passage):
            passages.append(passage)
    renewal.without = len(unanswered) - len(passages)
    if not passages:
        return renewal
    renewal.threshold = _lowest_kept(catalogue, kb)
    before = {passage.id: _of_model(catalogue, kb, passage) for passage in passages}
    if language_model is not None:
        score = model_score(reranker) if reranker else lexical_score(catalogue, kb)
        written = await write_questions(catalogue, kb, passages, language_model, score)
        renewal.failures = written.failures
        if not written.gave_up:
            renewal.written = {passage.key for passage in passages} - {key for key, _ in written.failures}
    for passage in passages:
        now = _of_model(catalogue, kb, passage)
        left = [question for question in now if not any(is_near(question.text, q) for q in unanswered[passage.key])]
        renewal.dropped += len(now) - len(left)
        if [question.text for question in left] != [question.text for question in before[passage.id]]:
            renewal.questions[passage.id] = [(question.text, question.score or 0.0) for question in left]
    renewal.apply(catalogue, kb)
    return renewal


def is_near(question: str, query: str) -> bool:
    a, b = set(query_token_ids(question)), set(query_token_ids(query))
    return len(a & b) >= NEAR * len(a | b)


def _of_model(catalogue: Catalogue, kb: KnowledgeBase, passage: StoredPassage) -> list[Question]:
    return [question for question in catalogue.questions(kb.id, passage.id) if question.source == "model"]


def _lowest_kept(catalogue: Catalogue, kb: KnowledgeBase) -> float:
    """Return the lowest score of the model's questions that are indexed; 0 when there is none."""
    lowest, after = 1.0, 0
    while page := catalogue.passages(kb.id, after):
        for passage in page:
            kept = [q.score or 0.0 for q in _of_model(catalogue, kb, passage) if q.kept]
            lowest = min(lowest, *kept) if kept else lowest
        after = page[-1].id
    return lowest
