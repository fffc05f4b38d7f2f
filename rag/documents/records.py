"""What a knowledge base is made of, before it is stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from rag.documents.token_blobs import TokenBlobs


class IngestError(Exception):
    """A document, a knowledge base or an index that cannot be used: one line naming the file, and the row if any."""


@dataclass(frozen=True, slots=True)
class Passage:
    """`key` is what hits call `doc_id`: a BEIR `_id`, else `<document name>#<n>`. `questions`: written by people, such
    as a FAQ's; each becomes one more key to the passage. `tokens`: of the content, where its reader counted them."""

    key: str
    content: str
    questions: tuple[str, ...] = ()
    tokens: TokenBlobs | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """`name` is unique in its knowledge base: the path below the folder it came from, or a BEIR `_id`."""

    name: str
    passages: tuple[Passage, ...]

    @property
    def content_hash(self) -> str:
        """SHA-256 of the passages in their order."""
        rows = [[passage.key, passage.content, *passage.questions] for passage in self.passages]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
