"""A rewrite in two texts, one for keyword search and one for the dense channel: each channel wants other words. Pure.

    lex: 纳豆 适宜人群
    vec: 哪些人适合吃纳豆

A rewriter that writes so, in two lines or in one, is retrieved with both texts. A tenant's system prompt may ask for
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KIND = re.compile(r"(?:^|(?<=\s))(lex|vec):(?:\s|$)")


@dataclass(frozen=True, slots=True)
class RewritePair:
    """`keyword` and `dense` are not empty."""

    keyword: str
    dense: str

    @property
    def text(self) -> str:
        """The pair as a policy writes it."""
        return f"lex: {self.keyword}\nvec: {self.dense}"


def read_pair(rewrite: str) -> RewritePair | None:
    """Return the pair that a rewrite is: `lex:` and its text, then `vec:` and its text, and nothing else."""
    if not rewrite.lstrip().startswith("lex:"):
        return None
    before, *parts = _KIND.split(rewrite)
    texts = [text.strip() for text in parts[1::2]]
    if before.strip() or parts[::2] != ["lex", "vec"] or not all(texts):
        return None
    return RewritePair(*texts)


def texts_of(rewrite: str) -> tuple[str, ...]:
    """Return the texts that retrieval searches with: both of a pair, else the rewrite."""
    pair = read_pair(rewrite)
    return (rewrite,) if pair is None else (pair.keyword, pair.dense)


def words_of(rewrite: str) -> str:
    """Return what a rewrite says: of a pair both texts in one line."""
    pair = read_pair(rewrite)
    return rewrite if pair is None else f"{pair.keyword} {pair.dense}"


def rewrite_in(answer: Mapping[str, Any]) -> str:
    """Return the rewrite that an answer names, a pair where `keyword_query` stands beside it; "" where there is
    none."""
    rewrite, keyword = (str(answer.get(name) or "") for name in ("rewritten_query", "keyword_query"))
    if not rewrite.strip() or not keyword.strip():
        return rewrite
    return RewritePair(keyword.strip(), rewrite.strip()).text


def retrieval_fields(rewrite: str) -> dict[str, str]:
    """Return the fields of the retrieval contract that a rewrite fills: of a pair `keyword_query`, too."""
    pair = read_pair(rewrite)
    if pair is None:
        return {"rewritten_query": rewrite}
    return {"rewritten_query": pair.dense, "keyword_query": pair.keyword}
