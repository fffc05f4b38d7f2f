"""How much of a reasoning chain is there: five elements, each in a clause of its own. Pure."""

from __future__ import annotations

from functools import lru_cache

from reward.medical.form import listed_share, without_lists
from reward.medical.lexicons import Lexicons
from reward.medical.reading import read
from reward.text.units import new_content, units

_SHORTEST = 5  # units: what is shorter is a keyword, no thought
_UNRELATED = 2  # elements: a chain that says nothing of this patient may be a template
_PARROTED = 0.15
ELEMENTS = ("observation", "reasoning", "severity", "unknowns", "plan")


@lru_cache(maxsize=2048)
def chain_score(chain: str, question: str, lexicons: Lexicons) -> tuple[float, tuple[str, ...]]:
    """Return (share of the elements that the chain covers, the elements covered).

    The elements: what the patient describes, what it may mean, how dangerous it is, what is unknown, what to do. An
    element counts in a clause of at least five units, each clause for one element. A chain that is mostly lists of
    keywords, or only repeats the question, has none; one that names nothing of the question has two at most.
    """
    if listed_share(chain) > 0.4 or (chain and new_content(chain, question) < _PARROTED):
        return 0.0, ()
    reading, asked = read(without_lists(chain)), set(units(question))
    options: list[set[str]] = []
    for start, end in reading.clauses:
        clause = reading.text[start:end]
        said = units(clause)
        if len(said) < _SHORTEST:
            continue
        found = {
            name
            for name in ELEMENTS
            if lexicons.pattern(getattr(lexicons.form.chain, name)).search(clause)
            and (name != "observation" or len(asked.intersection(said)) >= 2)
        }
        if found:
            options.append(found)
    covered = _matched(options)
    if "observation" not in covered:
        covered = set(sorted(covered)[:_UNRELATED])
    return len(covered) / len(ELEMENTS), tuple(name for name in ELEMENTS if name in covered)


def _matched(options: list[set[str]]) -> set[str]:
    """The most elements that clauses can cover, one each (augmenting paths: there are five elements)."""
    by_element: dict[str, int] = {}

    def assign(clause: int, tried: set[str]) -> bool:
        for name in sorted(options[clause] - tried):
            tried.add(name)
            if name not in by_element or assign(by_element[name], tried):
                by_element[name] = clause
                return True
        return False

    for clause in range(len(options)):
        assign(clause, set())
    return set(by_element)
