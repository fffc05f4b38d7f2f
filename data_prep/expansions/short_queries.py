"""Short queries out of longer ones: people type one or two words, generated data rarely has them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from data_prep.expansions.examples import Example
from data_prep.questions.split import bare
from reward.expansion.language import CJK, entities, key_terms, language_of, words
from reward.expansion.rules import score

WORDS = 2  # of a short query
LEAST_SCORE = 0.6  # "good": lines written for the long query must serve the short one


def short_copies(examples: Sequence[Example], share: float, seed: int) -> Iterator[Example]:
    """Yield copies of examples under a query of two words, up to `share` of all examples.

    The two words are key terms of the query, entities first, that the most lex lines hold, in the query's order. A copy
    whose query is there already, or whose lines score below `LEAST_SCORE` for it, is left out. Which examples are taken
    depends on `seed` and their texts alone.
    """
    taken = {bare(example.query) for example in examples}
    wanted = round(share * len(examples))
    drawn = sorted(examples, key=lambda example: hashlib.sha256(f"{seed}\n{example.query}".encode()).digest())
    for example in drawn:
        if wanted <= 0:
            return
        query = short_query(example)
        if not query or bare(query) in taken or score(query, example.expansion).total < LEAST_SCORE:
            continue
        taken.add(bare(query))
        wanted -= 1
        named = {"id": f"{example.id}_short"} if example.id else {}
        yield example.model_copy(update={"query": query, "is_short": True, "augmented": True, **named})


def short_query(example: Example) -> str:
    """Return the two words, as they stand in the query; "" where the query is that short, or has no two key terms that
    a lex line holds."""
    language = language_of(example.query)
    said = words(example.query, language)
    terms = [word for word in dict.fromkeys(said) if word in key_terms(example.query, language)]
    if len(terms) <= WORDS:
        return ""
    lex = [text.lower() for kind, text in example.output if kind == "lex"]
    known = entities(example.query, language)
    held = {term: sum(term in text for text in lex) for term in terms}
    chosen = sorted(terms, key=lambda term: (term not in known, -held[term], terms.index(term)))[:WORDS]
    if not all(held[term] for term in chosen):
        return ""
    as_written = [_as_written(example.query, term) for term in sorted(chosen, key=terms.index)]
    return ("" if language == "zh" and all(CJK.search(word) for word in as_written) else " ").join(as_written)


def _as_written(query: str, term: str) -> str:
    start = query.lower().find(term)
    return query[start : start + len(term)] if start >= 0 else term
