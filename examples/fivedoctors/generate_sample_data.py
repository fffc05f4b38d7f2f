"""Write the sample data of the quick start: a small shop's knowledge base, its customers' queries, its 32B's rewrites.

    python -m examples.fivedoctors.generate_sample_data --out DIR [--seed 0]

Algorithm: every product x intent gives one passage; every product x wording is one possible query whose only relevant
passage is that product's passage for the wording's intent. For each kind of wording (regular, systematic, unseen) the
products are dealt out to the wordings in turn; training takes the first of these pairs, the held-out file the next, so
that no pair is in both. A fixed share of the queries gets a profile, another a history that alone names the product.
The recorded baseline answers `nickname keyword`, except for its two kinds of error: a systematic wording always gets
the same wrong pattern (intents.yaml), and a fixed share of the other queries a random wrong one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table

from reward.records.commands import command
from reward.records.files import BadInput, first_problem, write_atomically

SOURCES = Path(__file__).parent

# Rows per file and slice; the first slice of a query is its kind of wording.
COUNTS = {
    "train": {"regular": 750, "systematic": 150},
    "heldout": {"regular": 380, "systematic": 100, "unseen_wording": 120},
}
PROFILE_SHARE = 0.35
HISTORY_SHARE = 0.30
RANDOM_ERROR_SHARE = 0.10  # of the queries without a systematic error
USUAL_REWRITE_SHARE = 0.7  # the rest takes the intent's second surface form


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_SourceT = TypeVar("_SourceT", bound=_Source)


class SystematicWording(_Source):
    """A wording that the baseline always rewrites as `baseline`."""

    wording: str
    baseline: str


class Intent(_Source):
    """What a customer may want to know: how passages say it (`keyword`, `passages`) and how customers do."""

    id: str
    keyword: str
    rewrites: tuple[str, str]
    passages: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    systematic: tuple[SystematicWording, ...]
    profiles: tuple[str, ...] = ()


class History(_Source):
    summary: str
    turns: tuple[str, ...]


class Contexts(_Source):
    """What may surround a query, and the baseline's empty phrases."""

    pronouns: tuple[str, ...]
    profiles: tuple[str, ...]
    histories: tuple[History, ...]
    generic_rewrites: tuple[str, ...]


class Wording(_Source):
    """One colloquial phrasing of an intent; `wrong_rewrite` is set where the baseline fails systematically."""

    text: str
    intent: Intent
    wrong_rewrite: str | None = None


class Pair(_Source):
    """A wording about a product: the unit that is in training or held out, never both. `slice_name` as in COUNTS."""

    wording: Wording
    product: dict[str, str]
    slice_name: str


def load_yaml(name: str) -> Any:
    """Load a source file; raise BadInput when it is not YAML."""
    try:
        return yaml.safe_load((SOURCES / name).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInput(f"{name}: not YAML: {str(error).splitlines()[0]}") from None


def load_intents() -> list[Intent]:
    """Load the intents; raise BadInput naming file, entry and field when an entry is malformed."""
    return [_parse(Intent, entry, f"intents.yaml: entry {n}") for n, entry in enumerate(load_yaml("intents.yaml"), 1)]


def load_contexts() -> Contexts:
    """Load the contexts; raise BadInput naming file and field when the file is malformed."""
    return _parse(Contexts, load_yaml("contexts.yaml"), "contexts.yaml")


def _parse(kind: type[_SourceT], values: Any, where: str) -> _SourceT:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{where}: {first_problem(error)}") from None


def passage_id(product: dict[str, str], intent: Intent) -> str:
    return f"{product['id']}.{intent.id}"


def build_corpus(products: list[dict[str, str]], intents: list[Intent]) -> list[dict[str, str]]:
    """Build one passage for each product and intent, with BEIR fields.

    Raises:
        BadInput: a passage pattern names a fact that a product lacks.
    """
    corpus = []
    for row, product in enumerate(products):
        for column, intent in enumerate(intents):
            pattern = intent.passages[(row + column) % len(intent.passages)]
            try:
                text = pattern.format(p=product["nickname"], **product)
            except KeyError as error:
                raise BadInput(f"products.yaml: {product.get('id', row + 1)}: lacks the field {error}") from None
            corpus.append({"_id": passage_id(product, intent), "text": text})
    return corpus


def wordings_by_slice(intents: list[Intent]) -> dict[str, list[Wording]]:
    wordings: dict[str, list[Wording]] = {"regular": [], "systematic": [], "unseen_wording": []}
    for intent in intents:
        wordings["regular"] += [Wording(text=text, intent=intent) for text in intent.seen]
        wordings["unseen_wording"] += [Wording(text=text, intent=intent) for text in intent.unseen]
        wordings["systematic"] += [
            Wording(text=entry.wording, intent=intent, wrong_rewrite=entry.baseline) for entry in intent.systematic
        ]
    return wordings


def deal_pairs(
    wordings: list[Wording], products: list[dict[str, str]], slice_name: str, rng: random.Random
) -> Iterator[Pair]:
    """Yield every wording x product once, in rounds: each round gives every wording one more product."""
    orders = [rng.sample(products, len(products)) for _ in wordings]
    for turn in range(len(products)):
        for column in rng.sample(range(len(wordings)), len(wordings)):
            yield Pair(wording=wordings[column], product=orders[column][turn], slice_name=slice_name)


def choose_positions(n: int, share: float, rng: random.Random) -> set[int]:
    """Choose exactly round(n * share) of the positions 0..n-1."""
    return set(rng.sample(range(n), round(n * share)))


def random_error(pair: Pair, intents: list[Intent], contexts: Contexts, has_history: bool, rng: random.Random) -> str:
    """Draw a wrong rewrite pattern: an empty phrase, another intent, or (history only) the product forgotten."""
    kind = rng.choice(["generic", "other_intent", "product_forgotten" if has_history else "generic"])
    if kind == "generic":
        return rng.choice(contexts.generic_rewrites)
    if kind == "product_forgotten":
        return f"保健品 {pair.wording.intent.keyword}"
    return "{p} " + rng.choice([intent.keyword for intent in intents if intent.id != pair.wording.intent.id])


def build_queries(
    pairs: list[Pair], prefix: str, intents: list[Intent], contexts: Contexts, rng: random.Random
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[tuple[str, str]]]:
    """Build BVT queries, recorded baseline rewrites and (query id, passage id) judgements of `pairs`, all of one
    slice."""
    with_profile = choose_positions(len(pairs), PROFILE_SHARE, rng)
    with_history = choose_positions(len(pairs), HISTORY_SHARE, rng)
    with_error = choose_positions(len(pairs), RANDOM_ERROR_SHARE, rng)
    queries, rewrites, judgements = [], [], []
    for position, pair in enumerate(pairs):
        intent, nickname = pair.wording.intent, pair.product["nickname"]
        history = rng.choice(contexts.histories) if position in with_history else None
        # The baseline errs in two ways: always on some wordings, and by chance on some of the others.
        if pair.wording.wrong_rewrite is not None:
            rewrite = pair.wording.wrong_rewrite
        elif position in with_error:
            rewrite = random_error(pair, intents, contexts, history is not None, rng)
        else:
            rewrite = intent.rewrites[0 if rng.random() < USUAL_REWRITE_SHARE else 1]
        query: dict[str, Any] = {
            "query_id": f"{prefix}_{pair.slice_name}_{position + 1:04d}",
            "query": pair.wording.text.format(p=rng.choice(contexts.pronouns) if history else nickname),
            "user_profile": rng.choice(intent.profiles or contexts.profiles) if position in with_profile else "",
            "history_summary": history.summary.format(p=nickname) if history else "",
            "history_context": "\n".join(history.turns).format(p=nickname) if history else "",
            "slices": [pair.slice_name] + (["needs_history"] if history else []),
        }
        queries.append(query)
        rewrites.append(
            {key: query[key] for key in ("query_id", "query", "history_context")}
            | {"rewritten_query": rewrite.format(p=nickname)}
        )
        judgements.append((query["query_id"], passage_id(pair.product, intent)))
    return queries, rewrites, judgements


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomically(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def write_sample_data(out: Path, seed: int = 0) -> dict[str, int]:
    """Write every file into `out`; same seed, same bytes. Returns the number of rows of each file.

    Raises:
        BadInput: a source file does not hold what it should.
    """
    rng = random.Random(seed)
    products: list[dict[str, str]] = load_yaml("products.yaml")
    intents, contexts = load_intents(), load_contexts()
    decks = {name: deal_pairs(wordings, products, name, rng) for name, wordings in wordings_by_slice(intents).items()}
    files: dict[str, list[dict[str, Any]]] = {"corpus": build_corpus(products, intents), "queries": []}
    files["baseline_rewrites"] = []
    judgements: list[tuple[str, str]] = []
    for part, counts in COUNTS.items():
        rows = []
        for slice_name, count in counts.items():
            pairs = [next(decks[slice_name]) for _ in range(count)]
            queries, rewrites, relevant = build_queries(pairs, part, intents, contexts, rng)
            rows += list(zip(queries, rewrites, relevant, strict=True))
        rng.shuffle(rows)
        files[f"queries_{part}"] = [query for query, _, _ in rows]
        files["queries"] += [
            {"_id": query["query_id"], "text": query["query"], "split": part}
            for query in files[f"queries_{part}"]
            if not query["history_context"]
        ]
        files["baseline_rewrites"] += [rewrite for _, rewrite, _ in rows]
        judgements += [relevant for _, _, relevant in rows]
    for name, records in files.items():
        write_jsonl(out / f"{name}.jsonl", records)
    write_atomically(out / "qrels.tsv", ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, d in judgements)])
    return {f"{name}.jsonl": len(records) for name, records in files.items()} | {"qrels.tsv": len(judgements)}


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.fivedoctors.generate_sample_data",
        description="Write the sample data of the quick start: corpus, qrels, queries, recorded baseline rewrites.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into (made if missing)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    args = parser.parse_args(argv)
    counts = write_sample_data(args.out, args.seed)
    table = Table("file", "rows", title=str(args.out))
    for name, rows in counts.items():
        table.add_row(name, str(rows))
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
