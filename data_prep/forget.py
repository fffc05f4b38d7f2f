"""Find a person in data sets, ledgers, rollouts, workbooks and services' data folders, and remove what is found.

python -m data_prep.forget --person '138.?1234.?5678' data outputs          # only counts
python -m data_prep.forget --person '陈建国' --id request-4711 data outputs kb --yes
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import pyarrow as pa
from python_calamine import CalamineError
from rich.console import Console
from rich.table import Table

from data_prep.forgetting.databases import CATALOGUE, forget_catalogue, forget_ledger
from data_prep.forgetting.manifests import renew_manifests, renew_records
from data_prep.forgetting.row_files import PAGES, ROW_FILES, Findings, forget_page
from guard.personal.wanted import Wanted
from reward.records.commands import command
from reward.records.files import BadInput

_UNREADABLE = (OSError, ValueError, BadZipFile, CalamineError, pa.ArrowException, sqlite3.Error, BadInput)
_MANUAL = """\
what is looked for
  --person PATTERN  a regular expression, in any letter case, in every text as it is written and in its normal form
                    (half-width digits). Quote it. Several are looked for together.
  --id ID           a whole value: a query_id, request_id, doc_id, sample_id. An id that was masked is found, too.
  Prepared data is masked already: what patterns find there is what masks do not know, such as a bare name.

where
  Files and folders, with all below: .jsonl .log .parquet .csv, workbooks of run_bvt, ledgers (.sqlite), rollouts, the
  medical task's files (the teacher's archive, opinions, conflicts, review workbooks and labels, rounds and releases),
  and the data folders of a service (catalogue.sqlite: passages, questions, clicks). A row that tells of the person is
  removed whole. In pages (.json .html .md .txt .yaml .svg) the person's words become [已删除], and in statistics and
  data cards what removed rows say does, too. Links are not followed.

what happens
  Without --yes nothing is changed. With it each file is written anew, whole or not at all, and manifests beside it name
  the new hashes and counts. Of a paid call the ledger keeps the cost, not the answer. Stop what writes to these folders
  first; a service may run on. Names of files are never changed.

what stays
  The exports that data was built from, unless you name their folder; packed logs (.gz .zst); what a model learnt from
  removed rows: train it again. The command names what it could not look into.

exit codes
  0 done, or only counted; 1 something that was found could not be removed; 2 bad input, in one line
"""


@dataclass(frozen=True, kw_only=True)
class ForgetOptions:
    """Whom to forget where.

    Args:
        paths: files and folders.
        person: regular expressions.
        ids: whole values.
        yes: remove what is found; else only count.
    """

    paths: Sequence[Path]
    person: Sequence[str] = ()
    ids: Sequence[str] = ()
    yes: bool = False


@dataclass
class Forgotten:
    """What was found by artefact, what could not be looked into, and whether there are weights."""

    artefacts: dict[str, Findings]
    closed: list[str]
    manifests: list[Path]
    has_weights: bool = False


def forget(options: ForgetOptions) -> Forgotten:
    """Look through everything and, with `yes`, remove what is found.

    Raises:
        BadInput: nothing is looked for, a pattern cannot be used, or there is no such path.
    """
    try:
        wanted = Wanted.of(options.person, options.ids)
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    for path in options.paths:
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
    done = Forgotten({}, [], [])
    files = list(dict.fromkeys(file for path in options.paths for file in _files(path)))
    pages = [file for file in files if file.suffix in PAGES]
    # Rows first: pages about the data may quote what is removed.
    for file in files:
        if file not in pages:
            _look_into(file, wanted, options, done)
    texts = {text for findings in done.artefacts.values() for text in findings.texts}
    for page in pages:
        _note(done, str(page), lambda page=page: forget_page(page, wanted, texts, remove=options.yes))  # type: ignore[misc]
    removed = {Path(name): findings.removed for name, findings in done.artefacts.items() if findings.removed}
    for folder in sorted({path.parent for path in removed}):
        done.manifests += renew_manifests(folder, removed)
    done.manifests += renew_records(files, removed.keys())
    return done


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield file


def _look_into(file: Path, wanted: Wanted, options: ForgetOptions, done: Forgotten) -> None:
    if file.name == CATALOGUE:
        try:
            tables = forget_catalogue(file.parent, options.person, options.ids, remove=options.yes)
        except BadInput as problem:
            done.closed.append(str(problem))
            return
        done.artefacts |= {f"{file} {table}": rows for table, rows in tables.items() if rows.found}
    elif file.suffix == ".sqlite":
        _note(done, str(file), lambda: forget_ledger(file, wanted, remove=options.yes))
    elif read := ROW_FILES.get(file.suffix):
        _note(done, str(file), lambda: read(file, wanted, remove=options.yes))
    elif file.suffix in (".safetensors", ".pt"):
        done.has_weights = True
    elif not file.name.endswith(("-wal", "-shm", ".lock")):
        done.closed.append(f"{file}: of no kind that is looked into")


def _note(done: Forgotten, name: str, look: object) -> None:
    try:
        findings: Findings = look()  # type: ignore[operator]
    except _UNREADABLE as problem:
        done.closed.append(f"{name}: {str(problem).removeprefix(f'{name}: ')}")
        return
    if findings.found:
        done.artefacts[name] = findings


def report(done: Forgotten, *, removed: bool) -> None:
    """Print what was found by artefact; never the person's words."""
    table = Table("artefact", "found", "removed", title="forgotten" if removed else "found", title_justify="left")
    for name, findings in done.artefacts.items():
        shown = str(findings.removed) if removed else "–"
        table.add_row(name, str(findings.found), f"{shown} ({findings.problem})" if findings.problem else shown)
    console = Console()
    if done.artefacts:
        console.print(table)
    for path in done.manifests:
        print(f"manifest renewed: {path}")
    for what in done.closed:
        print(f"not looked into: {what}")
    if done.has_weights:
        print("note: there are model weights: what they learnt from removed rows is gone once they are trained again")
    total = sum(findings.found for findings in done.artefacts.values())
    gone = sum(findings.removed for findings in done.artefacts.values())
    if not removed and total:
        print("nothing was changed: add --yes to remove what was found")
    print(json.dumps({"artefacts": len(done.artefacts), "found": total, "removed": gone, "closed": len(done.closed)}))


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.forget",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files and folders")
    parser.add_argument(
        "--person", action="append", default=[], metavar="PATTERN", help="regular expression; repeatable"
    )
    parser.add_argument("--id", dest="ids", action="append", default=[], metavar="ID", help="a whole value; repeatable")
    parser.add_argument("--yes", action="store_true", help="remove what is found (default: only count)")
    options = ForgetOptions(**vars(parser.parse_args(argv)))
    done = forget(options)
    report(done, removed=options.yes)
    left = any(findings.removed < findings.found for findings in done.artefacts.values())
    return 1 if options.yes and left else 0


if __name__ == "__main__":
    raise SystemExit(main())
