"""Find a person in a service's data folder, and remove what is found: passages, their questions, and clicks.

    python -m rag.forget --index data --person 13812345678            # only counts
    python -m rag.forget --index data --person 13812345678 --yes

`python -m data_prep.forget` calls it for every data folder that it comes across. A running service may stay: what is
removed is found by no search from then on, and leaves the vectors when the knowledge base is searched next. The last
line is JSON: what was found and removed, by table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guard.personal.wanted import Wanted
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Clicks
from rag.catalogue.database import FILE
from rag.catalogue.records import KnowledgeBase, StoredPassage
from rag.command import command
from rag.documents.records import Document, IngestError, Passage

_PAGE = 500


@dataclass
class Found:
    """Rows of one table."""

    found: int = 0
    removed: int = 0


def forget(folder: Path, wanted: Wanted, *, remove: bool) -> dict[str, Found]:
    """Look through every knowledge base and remove what is `wanted`; return the counts by table.

    Raises:
        IngestError: `folder` is no data folder.
    """
    if not (folder / FILE).is_file():
        raise IngestError(f"{folder}: holds no {FILE}")
    catalogue = Catalogue(folder)
    counts = {"passages": Found(), "clicks": Found()}
    try:
        catalogue.database.connection.execute("PRAGMA secure_delete = ON")  # freed pages are overwritten
        for kb in catalogue.knowledge_bases():
            for name, passages in _documents(catalogue, kb):
                gone = {one.id for one in passages if _is_wanted(catalogue, kb, one, wanted)}
                counts["passages"].found += len(gone)
                if gone and remove:
                    _remove(catalogue, kb, name, passages, gone)
                    counts["passages"].removed += len(gone)
            clicks = Clicks(catalogue)
            ids = [row_id for row_id, texts in clicks.texts(kb.id) if wanted.is_in(texts)]
            counts["clicks"].found += len(ids)
            if ids and remove:
                counts["clicks"].removed += clicks.delete(ids)
        if remove:
            catalogue.drop_superseded(wanted.is_in)
            catalogue.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        catalogue.close()
    return counts


def _documents(catalogue: Catalogue, kb: KnowledgeBase) -> Iterator[tuple[str, list[StoredPassage]]]:
    after = ""
    while page := catalogue.documents(kb.id, after, _PAGE):
        for document in page:
            yield document.name, catalogue.document(kb.id, document.name)
        after = page[-1].name


def _is_wanted(catalogue: Catalogue, kb: KnowledgeBase, passage: StoredPassage, wanted: Wanted) -> bool:
    asked = [question.text for question in catalogue.questions(kb.id, passage.id)]
    return wanted.is_in([passage.key, passage.document, passage.content, *asked])


def _remove(catalogue: Catalogue, kb: KnowledgeBase, name: str, passages: list[StoredPassage], gone: set[int]) -> None:
    """Replace the document by what is left of it."""
    left = []
    for passage in passages:
        if passage.id not in gone:
            own = (one.text for one in catalogue.questions(kb.id, passage.id) if one.source == "human")
            left.append(Passage(passage.key, passage.content, tuple(own)))
    if left:
        catalogue.put_documents(kb.id, [Document(name, tuple(left))])
    else:
        catalogue.delete_document(kb.id, name)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.forget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder of the service")
    parser.add_argument(
        "--person", action="append", default=[], metavar="PATTERN", help="regular expression; repeatable"
    )
    parser.add_argument("--id", action="append", default=[], help="a whole key or request id; repeatable")
    parser.add_argument("--yes", action="store_true", help="remove what is found (default: only count)")
    args = parser.parse_args(argv)
    try:
        wanted = Wanted.of(args.person, args.id)
    except ValueError as problem:
        raise IngestError(str(problem)) from None
    counts = forget(args.index, wanted, remove=args.yes)
    for table, rows in counts.items():
        print(f"{args.index}: {table}: found {rows.found}, removed {rows.removed}")
    print(json.dumps({table: [rows.found, rows.removed] for table, rows in counts.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
