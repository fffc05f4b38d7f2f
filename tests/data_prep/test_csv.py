"""CSV as people save it: encodings, delimiters, titles, ragged rows, open quotes, damage."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.readers.csv_file import read_csv
from data_prep.rows.columns import ROWS
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

REQUIRED = ("original_query", "rewritten_query")
TOP = "原始查询,改写查询\n"


def read(
    path: Path, content: str | bytes, headings: dict[str, str] | None = None, notes: list[str] | None = None
) -> list[dict[str, Any]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    batches = list(read_csv(path, SourceSettings(headings=headings or {}), REQUIRED, notes))
    assert all(batch.schema == ROWS for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def cells(rows: Sequence[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(row["row"], row["original_query"], row["rewritten_query"]) for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "导出.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le"])
def test_encodings_and_line_breaks_in_cells(path: Path, encoding: str) -> None:
    text = (
        "\ufeff" if encoding == "utf-16-le" else ""
    ) + '"原始查询","改写查询"\r\n"鱼油\n怎么吃",用法\r\n𠮷野家,"他说""好"""\r\n'
    assert cells(read(path, text.encode(encoding))) == [(2, "鱼油\n怎么吃", "用法"), (3, "𠮷野家", '他说"好"')]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_delimiters(path: Path, delimiter: str) -> None:
    text = "原始查询|改写查询|备注\n鱼油|用法, 用量; 别的\t|x\n".replace("|", delimiter)
    text = text.replace("用法, 用量; 别的\t", '"用法, 用量; 别的\t"')
    assert cells(read(path, text)) == [(2, "鱼油", "用法, 用量; 别的\t")]


def test_titles_above_the_headings_and_blank_rows(path: Path) -> None:
    text = f'BVT 测试结果\n\n"说明，\n分两行",,,\n{TOP}a,b\n\n , \nc,d\n,\n'
    assert cells(read(path, text)) == [(5, "a", "b"), (8, "c", "d")]


def test_ragged_rows_are_refused_in_their_place(path: Path) -> None:
    rows = read(path, TOP + "a,b\nc\nd,e,f\n  \ng,h\ni\n")
    assert [(row["row"], row["original_query"], row["refused"]) for row in rows] == [
        (2, "a", ""),
        (3, "", "1 cell below 2 headings"),
        (4, "", "3 cells below 2 headings"),
        (6, "g", ""),
        (7, "", "1 cell below 2 headings"),
    ]


def test_row_numbers_over_many_blocks(path: Path) -> None:
    long = "长" * 1000
    lines = [f"{long}{n},b" if n % 7_000 else "只有一格" for n in range(1, 14_002)]
    rows = read(path, TOP + "\n".join(lines))
    assert [row["row"] for row in rows] == list(range(2, 14_003))
    assert [row["row"] for row in rows if row["refused"]] == [7_001, 14_001]
    assert rows[-1]["original_query"] == f"{long}14001"


def test_values_are_typed_and_columns_we_do_not_know_passed_over(path: Path) -> None:
    top = "查询,改写查询,备注,是否成功,top1分数,召回结果\n"
    text = top + '鱼油,用法,x,是,85%,"[{""content"": ""a""}]"\n钙,片,y,也许,0.5,\n'
    good, bad = read(path, text)
    assert (good["success"], good["top1_score"], good["recall_count"], good["refused"]) == (True, 0.85, 1, "")
    assert bad["refused"] == "success: neither true nor false: '也许'"


def test_the_tenants_own_headings(path: Path) -> None:
    assert cells(read(path, "题干,答案\na,b\n", {"题干": "original_query", "答案": "rewritten_query"})) == [
        (2, "a", "b")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_bytes_that_are_no_text_cost_their_row(path: Path, encoding: str) -> None:
    rows = read(path, (TOP + "鱼油,用法\n" * 300).encode(encoding) + b"\xff,ok\nfine,fine\n")
    assert len(rows) == 302 and [row["row"] for row in rows if row["refused"]] == [302]
    assert rows[300]["refused"] == "original_query: bytes that are no text" and rows[0]["original_query"] == "鱼油"


def test_nul_bytes_and_control_characters_are_text(path: Path) -> None:
    assert cells(read(path, TOP + "a\0b,\x07c\n")) == [(2, "a\0b", "\x07c")]


def test_an_open_quote_is_noted(path: Path) -> None:
    notes: list[str] = []
    rows = read(path, TOP + 'a,b\nc,"d\ne,f\n', notes=notes)
    assert cells(rows) == [(2, "a", "b"), (3, "c", "d\ne,f\n")]
    assert notes == [f"{path}: a quote is opened and never closed: rows may have run together"]
    notes.clear()
    read(path, TOP + 'a,"b ""c"""\n', notes=notes)
    assert not notes


def test_a_giant_row_is_named(path: Path) -> None:
    with pytest.raises(BadInput, match="a row after row 11 is longer than 2 MiB: is a quote never closed"):
        read(path, TOP + "a,b\n" * 10 + 'c,"' + "x" * (20 << 20) + "\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"\n , \n", "the file is empty"),
        (b"\xff\xff", "neither UTF-8 nor GB18030 text"),
        (random.Random(0).randbytes(3000), "neither UTF-8 nor GB18030 text"),
        (TOP.encode(), "no row below the headings"),
        (b"query,other\na,b\n", "no column rewritten_query (columns: query, other)"),
        (b"query,original_query,rewrite\na,b,c\n", "two columns mean original_query: 'query' and 'original_query'"),
        (TOP.replace("\n", "\r").encode() + b"a,b\r", "not CSV"),
    ],
)
def test_bad_files_are_named_in_one_line(path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as found:
        list(read_csv(path, SourceSettings(), REQUIRED))
    assert str(found.value).startswith(f"{path}: {problem}") and "\n" not in str(found.value)


def test_bytes_changed_anywhere_end_in_rows_or_in_one_line(path: Path) -> None:
    whole = (TOP + "".join(f'问题{n},"改写\n{n}"\n' for n in range(50))).encode()
    counts = []
    for seed in range(40):
        chance, changed = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice((1, 5, 50))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            counts.append(len(read(path, bytes(changed[: chance.randrange(len(changed))]))))
        except BadInput as problem:
            assert str(problem).startswith(f"{path}: ") and "\n" not in str(problem)
    assert max(counts) > 20


@pytest.mark.skipif("XLSX_TRICKY" not in os.environ, reason="XLSX_TRICKY names no folder of real files")
def test_a_real_file_of_office(path: Path) -> None:
    content = (Path(os.environ["XLSX_TRICKY"]) / "office_bom.csv").read_bytes()
    rows = read(path, content, {"姓名": "original_query", "年纪": "rewritten_query"})
    assert cells(rows) == [(n + 2, f"姓名{n}", "20") for n in range(10)]
