"""Retrieval sets on disk: a BEIR folder whose queries may carry, besides their text, what the asker wrote at length."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from rag.documents.read_documents import read_documents
from rag.documents.records import Document
from rag.learning.judged_queries import JudgedQueries, read_judged_queries

FOLDS = 5


@dataclass(frozen=True)
class Asked:
    """`query` and `context` are what the user said; `text` is what is searched with."""

    query: str
    context: str
    text: str


@dataclass(frozen=True)
class RetrievalSet:
    name: str
    documents: list[Document]
    queries: JudgedQueries

    def variants(self) -> dict[str, dict[str, Asked]]:
        """Return the ways to put the queries: text; and where every query has a description, the description, and
        both."""
        texts, long = self.queries.texts, self.queries.descriptions
        found = {"text": {query: Asked(text, "", text) for query, text in texts.items()}}
        if long.keys() == texts.keys():
            found["description"] = {query: Asked(long[query], "", long[query]) for query in texts}
            found["both"] = {query: Asked(text, long[query], f"{text}\n{long[query]}") for query, text in texts.items()}
        return found

    def with_keys(self, queries: Collection[str]) -> list[Document]:
        """Return the documents, each passage with the texts of those of `queries` that it answers as its questions."""
        questions: dict[str, dict[str, None]] = {}
        for query in sorted(queries):
            for key in self.queries.relevant[query]:
                questions.setdefault(key, {})[self.queries.texts[query]] = None
        return [
            replace(
                document,
                passages=tuple(replace(one, questions=tuple(questions.get(one.key, ()))) for one in document.passages),
            )
            for document in self.documents
        ]


def fold_of(text: str) -> int:
    """Return the text's fold, 0 … FOLDS-1; two queries of the same words are in the same fold."""
    return zlib.crc32(text.encode()) % FOLDS


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """Read a folder's `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`.

    Raises:
        IngestError: a file is missing or a row is not as it should be.
    """
    documents = list(read_documents(folder / "corpus.jsonl", "corpus.jsonl"))
    return RetrievalSet(folder.name, documents, read_judged_queries(folder))
