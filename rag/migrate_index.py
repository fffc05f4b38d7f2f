"""Move every knowledge base of a data folder from Qdrant Edge to a Qdrant server, or back.

    python -m rag.migrate_index --index data --to http://127.0.0.1:6333
    QDRANT_URL=http://127.0.0.1:6333 python -m rag.migrate_index --index data --to edge

Stop the service first; start it again with QDRANT_URL set (or, back, unset). Each knowledge base is written anew from
the catalogue, compared with what it was, and only then switched over, one at a time: run the command again after an
interruption and it goes on with those that are left. The key of the server is taken from QDRANT_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import FILE
from rag.catalogue.records import KnowledgeBase
from rag.command import command
from rag.documents.records import IngestError
from rag.documents.tokenizer import query_token_ids
from rag.index.engine import Engine, ScoredRow, Space
from rag.index.indexer import Indexer, OpenVersion, engine_of
from rag.index.version_writer import only_build, write_version
from rag.models.embedder import DEFAULT_RETRIEVER, EmbedderMaker, embedder_maker

EDGE = "edge"
# Of the searches compared; graphs of nearest neighbours are approximate, and each engine builds its own.
SAMPLE, DEPTH, AGREEMENT = 25, 10, 0.9
_TOLERANCE = 1e-3


def migrate_index(
    catalogue: Catalogue, source: Engine, target: Engine, models: EmbedderMaker, report: Callable[[str], None]
) -> None:
    """Move what is not in `target` yet and remove it from `source`; one line a knowledge base to `report`.

    Raises:
        IngestError: an index cannot be opened, or what was written differs from it; it stays where it was.
        ModelFailure, EngineUnavailable: of a model behind an endpoint, of a Qdrant server.
    """
    opener = Indexer(catalogue, source, models)
    for kb in catalogue.knowledge_bases():
        name = f"{catalogue.folder}: {kb.tenant_id}/{kb.name}"
        if kb.live_version is None:
            report(f"{name}, never indexed")
            continue
        live = catalogue.version(kb.live_version)
        if live.recipe.engine_id == target.id and target.exists(Space(live.id, live.recipe.dimension)):
            report(f"{name}, {live.points} points, there already")
            continue
        with only_build(catalogue.folder):
            opened = opener.open(kb)
            if opened is None:
                raise IngestError(f"{name}: its index cannot be opened: build it again")
            points = _move(catalogue, source, target, kb, opened)
        report(f"{name}, {points} points, moved")
    for identifier in catalogue.retired_versions():
        retired = catalogue.version(identifier)
        for engine in (source, target):
            ours = retired.recipe.engine_id.startswith(engine.kind)
            if ours and engine.drop(Space(identifier, retired.recipe.dimension)):
                catalogue.forget_version(identifier)


def _move(catalogue: Catalogue, source: Engine, target: Engine, kb: KnowledgeBase, opened: OpenVersion) -> int:
    """Write a version made like the opened one, check and publish it; return its number of points."""
    recipe = replace(opened.version.recipe, engine_id=target.id)
    # Its statistics are still those of the revision that the opened one was built from.
    described = replace(kb, revision=opened.version.built_revision)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{kb.tenant_id}/{kb.name}", total=1.0)
        version, points = write_version(
            catalogue,
            target,
            described,
            recipe,
            opened.embedder,
            opened.statistics,
            lambda share: progress.update(task, completed=share),
        )
    space = Space(version.id, recipe.dimension)
    found = target.count(space)
    if found != points:
        raise IngestError(f"{kb.tenant_id}/{kb.name}: {points} points were written, {found} are there")
    agreement = asyncio.run(_compare(catalogue, kb, opened, source, target, space))
    if agreement < AGREEMENT:
        raise IngestError(f"{kb.tenant_id}/{kb.name}: the two indexes agree on {agreement:.0%} of hits only")
    catalogue.mark_applied(version.id, kb.revision)
    catalogue.publish_version(version.id, points)
    return points


async def _compare(
    catalogue: Catalogue, kb: KnowledgeBase, opened: OpenVersion, source: Engine, target: Engine, space: Space
) -> float:
    """Return the mean share of the source's best hits that the target has among its own, searching for a sample of
    passages."""
    step = max(1, (kb.passages + kb.questions) // SAMPLE)
    texts = [key.text for place, key in enumerate(catalogue.index_keys(kb.id)) if place % step == 0]
    shares = []
    for text in texts:
        tokens = query_token_ids(text)
        query = (opened.embedder.embed_query(text), (tokens, [1.0] * len(tokens)), DEPTH, kb.questions > 0)
        before, after = await source.search(opened.space, *query), await target.search(space, *query)
        shares += [_share_kept(*channel) for channel in zip(before, after, strict=True)]
    return sum(shares) / max(1, len(shares))


def _share_kept(before: Sequence[ScoredRow], after: Sequence[ScoredRow]) -> float:
    """Return the share of hits kept; one that ties with the last hit of `after` may be missing from it."""
    if not before:
        return 1.0
    kept = {(row.row_id, row.is_question) for row in after}
    last = after[-1].score * (1 + _TOLERANCE) + _TOLERANCE if len(after) >= len(before) else float("-inf")
    return sum((row.row_id, row.is_question) in kept or row.score <= last for row in before) / len(before)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.migrate_index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder")
    parser.add_argument("--to", required=True, help="URL of a Qdrant server, or edge")
    parser.add_argument(
        "--retriever", default=DEFAULT_RETRIEVER, help="as the index was built with (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not (args.index / FILE).is_file():
        raise IngestError(f"{args.index}: no data folder")
    server = os.environ.get("QDRANT_URL") if args.to == EDGE else args.to
    if not server:
        raise IngestError("QDRANT_URL: name the server to move away from")
    engines = [engine_of(args.index, server), engine_of(args.index, None)]
    catalogue = Catalogue(args.index)
    try:
        source, target = engines if args.to == EDGE else engines[::-1]
        migrate_index(catalogue, source, target, embedder_maker(args.retriever), print)
    finally:
        catalogue.close()
        for engine in engines:
            engine.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
