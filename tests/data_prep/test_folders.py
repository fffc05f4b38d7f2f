"""Files and folders together: what is found, in which order, and what one bad file among good ones costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xlsxwriter

from data_prep.readers.sources import KINDS, Sources, find_files
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

REQUIRED = ("original_query", "rewritten_query")
TOP = "original_query,rewritten_query\n"


def names(paths: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def sources(*paths: Path) -> Sources:
    return Sources(paths, SourceSettings(), REQUIRED)


def test_folders_give_their_files_in_name_order_each_once(tmp_path: Path) -> None:
    for name in (
        "b.csv",
        "a.xlsx",
        "更多/c.jsonl.gz",
        "更多/~$a.xlsx",
        ".隐藏/d.csv",
        "e.pdf",
        ".f.csv",
        "G.CSV",
        "h.log",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()
    assert names(find_files([tmp_path]), tmp_path) == ["G.CSV", "a.xlsx", "b.csv", "h.log", "更多/c.jsonl.gz"]
    again = find_files([tmp_path / "b.csv", tmp_path / "更多" / ".." / "b.csv", tmp_path])
    assert names(again, tmp_path) == ["b.csv", "G.CSV", "a.xlsx", "h.log", "更多/c.jsonl.gz"]


def test_paths_that_hold_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    for path, problem in (
        (tmp_path, f"no file to read in this folder (kinds: {' '.join(KINDS)})"),
        (tmp_path / "a.pdf", f"expected one of {' '.join(KINDS)}"),
        (tmp_path / "b.csv", "no such file or folder"),
    ):
        with pytest.raises(BadInput) as found:
            find_files([path])
        assert str(found.value) == f"{path}: {problem}"


def test_one_unreadable_file_does_not_cost_the_others(tmp_path: Path) -> None:
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        for name, row in (("数据", ["鱼油", "用法"]), ("说明", None)):
            sheet = book.add_worksheet(name)
            sheet.write_row(0, 0, TOP.strip().split(",") if row else ["说明"])
            sheet.write_row(1, 0, row or [])
    (tmp_path / "b.xlsx").write_bytes(b"PK\x03\x04 damaged")
    (tmp_path / "c.csv").write_text(TOP + "a,b\nc\n")
    (tmp_path / "d.csv").write_text("x,y\n")
    (tmp_path / "e.jsonl").write_text(json.dumps({"original_query": "d", "rewritten_query": "e"}) + "\n")
    found = sources(tmp_path)
    rows = [row for batch in found.batches() for row in batch.to_pylist()]
    assert [(Path(row["file"]).name, row["sheet"], row["row"], row["refused"]) for row in rows] == [
        ("a.xlsx", "数据", 2, ""),
        ("c.csv", "", 2, ""),
        ("c.csv", "", 3, "1 cell below 2 headings"),
        ("e.jsonl", "", 1, ""),
    ]
    assert [(Path(bad.file).name, bad.reason[:20]) for bad in found.unreadable] == [
        ("b.xlsx", "not a readable workb"),
        ("d.csv", "no column original_q"),
    ]
    assert found.notes == [
        f"{tmp_path / 'a.xlsx'}: sheet 说明: no column original_query, rewritten_query (columns: 说明)"
    ]
    assert sum(batch.num_rows for batch in found.batches()) == 4 and len(found.unreadable) == 2, "and again"


def test_a_file_damaged_on_its_way_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TOP + "a,b\n" * 3_000_000 + '"' + "x" * (20 << 20))
    found = sources(path)
    assert sum(batch.num_rows for batch in found.batches()) > 1_000_000
    assert [bad.reason.partition(" is ")[2] for bad in found.unreadable] == [
        "longer than 2 MiB: is a quote never closed?"
    ]


def test_no_readable_file_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(TOP)
    with pytest.raises(BadInput) as alone:
        list(sources(first).batches())
    assert str(alone.value) == f"{first}: no row below the headings"
    second.write_text("")
    with pytest.raises(BadInput) as both:
        list(sources(tmp_path).batches())
    assert str(both.value) == f"{first}: no row below the headings (and 1 more, none of which can be read)"


@pytest.mark.parametrize(
    "name",
    [
        *("app.log.1", "app.log.12.gz", "app.log.2026-01-02", "app.log.2026-01-02.zst", "app.log-20260101"),
        *("app.log-20260101.bz2", "app.jsonl.3", "app.log.2026-01-01T00-00-00.000", "app.json_20260101.gz"),
        *("app.log.old", "app.log.bak", "export.ndjson", "export.ndjson.gz", "APP.LOG.1"),
    ],
)
def test_a_rotated_log_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert names(find_files([tmp_path]), tmp_path) == [name] == names(find_files([tmp_path / name]), tmp_path)


def test_files_of_other_kinds_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{TOP}鱼油,用法\n", encoding="utf-8")
    others = ("app.log.1.xz", "app.log.tmp", "catalina.out", "export.parquet", "手册.pdf")
    for name in (*others, ".hidden", "~$a.xlsx"):
        (tmp_path / name).touch()
    found = sources(tmp_path)
    assert sum(batch.num_rows for batch in found.batches()) == 1
    named = ", ".join(str(tmp_path / name) for name in others)
    assert found.notes == [f"5 files passed over (no kind that is read): {named}"]
    for number in range(20):
        (tmp_path / f"{number:02}.out").touch()
    list(found.batches())
    [note] = found.notes
    assert note.startswith("25 files passed over") and note.endswith(" and 15 more") and "00.out" in note
