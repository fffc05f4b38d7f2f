"""A sheet of pairs that people judge without knowing which rewrite is whose, and back: what they said as canary pairs.

The sheet is CSV, so that Excel, WPS and LibreOffice open it. Each row carries a check of every text in it: a text that
was edited on the way is found by its row and column, and is no label of ours.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from unicodedata import normalize

from evaluation.inspection.rows import Row
from plain_text.text_file import open_text
from reward.judge.agreement import Label
from reward.judge.canary import CanaryPair
from reward.records.files import BadInput, replacing
from reward.records.sample import Context
from reward.records.spreadsheet import ENCODING, CsvTable, is_like_formula

TEXTS = ("query", "user_profile", "history_summary", "history_context", "rewrite_a", "rewrite_b")
COLUMNS = ("pair_id", *TEXTS, "preferred", "note", "check")
_LABELS: dict[str, Label] = {"a": "a", "b": "b", "tie": "tie", "=": "tie", "平": "tie", "平局": "tie"}
_PAIR_ID = re.compile(r"review-(\d+)of(\d+)-[0-9a-f]{8}")
_MOST_CELL = 32_000  # characters: Excel cuts a longer cell at 32 767
_DELIMITERS = ",;\t"


@dataclass
class Review:
    """What came back. `pairs`: the labelled ones. `problems`: a line for each row that is no label, and for pairs that
    are not there. `open`: rows without a label. `policy`: for each pair, 1 the policy's rewrite is preferred, -1 the
    baseline's, 0 neither."""

    pairs: list[CanaryPair] = field(default_factory=list)
    policy: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    open: int = 0


class PairDraw:
    """Draw `most` different pairs of policy and baseline from a stream of rows. Reservoir sampling, seeded.

    `unfit`: rows without two different rewrites, or with a text too long for a cell.
    """

    def __init__(self, most: int, seed: int = 0):
        self._most = most
        self._chance = random.Random(seed)
        self._kept: list[Row] = []
        self._seen: set[bytes] = set()
        self.unfit = 0

    def add(self, row: Row) -> None:
        texts = _texts(row, policy_first=True)
        a, b = texts["rewrite_a"], texts["rewrite_b"]
        if not a or not b or a == b or any(len(text) > _MOST_CELL for text in texts.values()):
            self.unfit += 1
            return
        key = hashlib.blake2b("\0".join(texts.values()).encode("utf-8", "replace"), digest_size=12).digest()
        if key in self._seen:
            return
        self._seen.add(key)
        if len(self._kept) < self._most:
            self._kept.append(row)
        elif (place := self._chance.randrange(len(self._seen))) < self._most:
            self._kept[place] = row

    def rows(self) -> list[Row]:
        """Return the rows drawn, shuffled: their order must tell nothing."""
        return self._chance.sample(self._kept, len(self._kept))


def write_review(path: Path, rows: Sequence[Row]) -> None:
    """Write the sheet: which of a and b is the policy's follows from the pair's id (`is_policy_first`)."""
    with replacing(path) as partial, partial.open("w", encoding=ENCODING, newline="") as file:
        table = CsvTable(file, COLUMNS)
        for number, row in enumerate(rows, start=1):
            digest = hashlib.sha256(
                f"{row.number} {row.sample_id} {row.query} {row.rewrite}".encode("utf-8", "replace")
            )
            pair_id = f"review-{number}of{len(rows)}-{digest.hexdigest()[:8]}"
            texts = _texts(row, policy_first=is_policy_first(pair_id))
            table.write([pair_id, *texts.values(), "", "", _check(pair_id, texts)])


def is_policy_first(pair_id: str) -> bool:
    """Say whether rewrite a of a pair is the policy's: half of them, by a hash that nobody computes in the head."""
    return hashlib.sha256(f"which is whose {pair_id}".encode()).digest()[0] % 2 == 0


def read_review(path: Path, origin: str) -> Review:
    """Read a sheet that people have filled in: `preferred` is a, b or tie, whatever its case; blank is not judged.

    Args:
        origin: what the pairs' `origin` says.

    Raises:
        BadInput: the file cannot be read as a table with the sheet's columns.
    """
    review = Review()
    seen: dict[str, int] = {}
    total = 0
    for row, cells in _rows(path):
        pair_id = cells["pair_id"]
        where = f"{path}: row {row}"
        if not (known := _PAIR_ID.fullmatch(pair_id)):
            review.problems.append(f"{where}: pair_id: {pair_id!r} is none of a review")
            continue
        total = max(total, int(known[2]))
        if pair_id in seen:
            review.problems.append(f"{where}: pair_id: {pair_id} is in row {seen[pair_id]} already")
            continue
        seen[pair_id] = row
        texts, changed = _restored(pair_id, cells)
        if changed:
            review.problems.append(
                f"{where}: {', '.join(changed)}: was changed since the sheet was written ({pair_id})"
            )
            continue
        said = normalize("NFKC", cells["preferred"]).strip().casefold()
        if not said:
            review.open += 1
            continue
        if (label := _LABELS.get(said)) is None:
            review.problems.append(f"{where}: preferred: {cells['preferred']!r} is none of a, b, tie ({pair_id})")
            continue
        review.pairs.append(
            CanaryPair(
                pair_id=pair_id,
                original_query=texts["query"],
                context=Context(
                    user_profile=texts["user_profile"],
                    history_summary=texts["history_summary"],
                    history_context=texts["history_context"],
                ),
                rewrite_a=texts["rewrite_a"],
                rewrite_b=texts["rewrite_b"],
                preferred=label,
                note=_unquoted(cells["note"]),
                origin=origin,
            )
        )
        review.policy.append(0 if label == "tie" else 1 if (label == "a") == is_policy_first(pair_id) else -1)
    missing = sorted(set(range(1, total + 1)) - {int(known[1]) for one in seen if (known := _PAIR_ID.fullmatch(one))})
    if missing:
        numbers = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        review.problems.append(f"{path}: {len(missing)} of {total} pairs are not there any more: {numbers}")
    return review


def _texts(row: Row, *, policy_first: bool) -> dict[str, str]:
    rewrites = (row.rewrite, row.baseline) if policy_first else (row.baseline, row.rewrite)
    context = row.context
    parts = (row.query, context.user_profile, context.history_summary, context.history_context, *rewrites)
    return {name: _plain(text) for name, text in zip(TEXTS, parts, strict=True)}


def _plain(text: str) -> str:
    """Return the text as a spreadsheet keeps it: line ends of one kind, no blanks around a line, none at the ends."""
    lines = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(" ".join(line.split()) for line in lines).strip()


def _check(pair_id: str, texts: dict[str, str]) -> str:
    """Return five characters for each text. The letter before them keeps a spreadsheet from taking it for a number."""
    return "c" + "-".join(_digest(pair_id, name, text) for name, text in texts.items())


def _digest(pair_id: str, name: str, text: str) -> str:
    return hashlib.sha256(f"{pair_id} {name} {text}".encode()).hexdigest()[:5]


def _restored(pair_id: str, cells: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the texts as they were written, and the columns whose text is another one now."""
    before = cells["check"].removeprefix("c").split("-")
    if len(before) != len(TEXTS):
        return {}, ["check"]
    texts: dict[str, str] = {}
    for name, digest in zip(TEXTS, before, strict=True):
        # The writer put a sign before what looks like a formula; a text may begin with that sign of its own.
        for text in (_unquoted(cells[name]), cells[name]):
            if _digest(pair_id, name, text) == digest:
                texts[name] = text
    return texts, [name for name in TEXTS if name not in texts]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row as a spreadsheet counts, cells by column) below the headings; blank rows are none.

    Raises:
        BadInput: no such file, no text, not the sheet's columns, or a row with more cells than headings.
    """
    if path.suffix.lower() in (".xlsx", ".xls", ".xlsm", ".ods", ".et"):
        raise BadInput(f"{path}: save the sheet as CSV (UTF-8) and give that file")
    lines = open_text(path, BadInput).lines()
    first = next(lines, "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=delimiter)
    try:
        headings = [name.strip().strip("\ufeff").casefold() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in headings]
        if missing:
            raise BadInput(f"{path}: row 1: lacks the columns {', '.join(missing)}")
        for row, cells in enumerate(reader, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(headings) :]):
                raise BadInput(f"{path}: row {row}: has more cells than there are headings")
            padded = [*cells, *[""] * len(headings)]
            yield row, {name: _plain(padded[headings.index(name)]) for name in COLUMNS}
    except csv.Error as error:
        raise BadInput(f"{path}: not a table: {error}") from None


def _unquoted(cell: str) -> str:
    """Take away the sign that the writer put before what looks like a formula."""
    return cell[1:] if cell.startswith("'") and is_like_formula(cell[1:]) else cell
