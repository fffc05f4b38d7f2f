"""CSV as people save it: encodings, delimiters, titles, ragged rows, open quotes, damage."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.readers.csv_file import read_csv
from data_prep.readers.csv_quotes import UNCLOSED
from data_prep.readers.log_file import read_logs
from data_prep.readers.qrels import read_qrels
from data_prep.rows.columns import ROWS
from data_prep.text.normalise import normalise_line
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


CLOSED = "rewritten_query: a quote is opened and never closed"


@pytest.mark.parametrize(
    ("below", "found"),
    [
        ('a,b\nc,"d\ne,f\n', [(2, "a", ""), (3, "c", CLOSED), (4, "e", "")]),
        ('a,b\nc,"d\n"e",f\ng,h\n', [(2, "a", ""), (3, "c", CLOSED), (4, "e", ""), (5, "g", "")]),
        ('"a","b\n"c","d"\n', [(2, "a", CLOSED), (3, "c", "")]),
        ('"a","b\n"c","d\n"e","f"\n', [(2, "a", CLOSED), (3, "c", CLOSED), (4, "e", "")]),
        ('a,"b\n' + "c,d\n" * 3, [(2, "a", CLOSED), (3, "c", ""), (4, "c", ""), (5, "c", "")]),
        ('a,"b, x\nc,d\n', [(2, "", CLOSED.partition(": ")[2]), (3, "c", "")]),
        ('a,"b ""c"""\n"d\n""e""",f\n', [(2, "a", ""), (3, 'd\n"e"', "")]),
        ('5" 屏,"b" \n"c" ,d\n', [(2, '5" 屏', ""), (3, "c ", "")]),
    ],
)
def test_a_row_with_an_open_quote_is_refused_alone(path: Path, below: str, found: list[tuple[int, str, str]]) -> None:
    rows = read(path, TOP + below)
    assert [(row["row"], row["original_query"].replace(UNCLOSED, '"'), row["refused"]) for row in rows] == found


def test_open_quotes_in_a_large_file(path: Path) -> None:
    line, n = '"鱼油{}","他说""好""，\n{}"\n', 60_000
    lines = [line.format(k, "长" * (k % 40)) for k in range(n)]
    opened = {k: f'"鱼油{k}","没有结尾\n' for k in range(1000, n, 7001)}
    rows = read(path, TOP + "".join(opened.get(k, text) for k, text in enumerate(lines)))
    assert [row["row"] - 2 for row in rows if row["refused"]] == list(opened)
    assert [row["original_query"] for row in rows] == [f"鱼油{k}" for k in range(n)]
    assert all(row["rewritten_query"].startswith('他说"好"，\n') for row in rows if not row["refused"])


def spark(cells: Sequence[str]) -> str:
    # Spark and univocity: only what is before a quote counts.
    return ",".join('"' + re.sub(r'(\\*)"', r'\1\1\\"', cell) + '"' for cell in cells) + "\n"


def mysql(cells: Sequence[str]) -> str:
    return ",".join('"' + re.sub(r'(["\\\n])', r"\\\1", cell) + '"' for cell in cells) + "\n"


@pytest.mark.parametrize("write", [spark, mysql])
def test_quotes_written_with_a_backslash(path: Path, write: Callable[[Sequence[str]], str]) -> None:
    texts = [
        ('他说"维生素C"怎么吃', "维生素C, 服用"),
        ('"全"是引号"', '27"'),
        ("C:\\路径\\x", "分\n行"),
        (json.dumps([{"content": '说"好"\n\\', "score": 0.5}]), '"" 服用'),
        ("没有引号", "没有"),
    ]
    rows = read(path, write(TOP.strip().split(",")) + "".join(map(write, texts)))
    assert [(row["original_query"], row["rewritten_query"]) for row in rows] == texts
    assert not any(row["refused"] for row in rows)


def test_backslashes_before_quotes_of_sound_csv_stay(path: Path) -> None:
    texts = [("C:\\", "a"), ('[{"content": "说\\"好\\""}]', "b\\"), ('他说\\"好', "c")]
    held = io.StringIO()
    csv.writer(held, quoting=csv.QUOTE_ALL).writerows([TOP.strip().split(","), *texts])
    assert [(row["original_query"], row["rewritten_query"]) for row in read(path, held.getvalue())] == texts


def test_a_quote_left_open_among_backslashes(path: Path) -> None:
    rows = read(path, TOP + '"他说\\"好\\"","b"\n"c","d\n"e","\\"f\\""\n')
    assert [(row["row"], row["original_query"], row["refused"]) for row in rows] == [
        (2, '他说"好"', ""),
        (3, "c", CLOSED),
        (4, "e", ""),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_line_ends(path: Path, end: str) -> None:
    text = f'标题,\n{TOP}a,"b\nc"\nd,e\n'.replace("\n", end)
    assert cells(read(path, text)) == [(3, "a", f"b{end}c"), (4, "d", "e")]


def test_cells_left_out_at_the_end_and_separators_too_many(path: Path) -> None:
    top = "原始查询,是否成功,改写查询,用户画像,历史摘要\n"
    rows = read(path, top + "a,是,b\nc,是,d,女\ne,是,f,女,g,,\nh,是\ni,是,j\nk,是,l,女,m,n\n,,\n")
    assert [(row["row"], row["original_query"], row["user_profile"], row["refused"]) for row in rows] == [
        (2, "a", "", ""),
        (3, "c", "女", ""),
        (4, "e", "女", ""),
        (5, "", "", "2 cells below 5 headings"),
        (6, "", "", "3 cells below 5 headings"),  # as if it were the rest of the row before
        (7, "", "", "6 cells below 5 headings"),
    ]
    everywhere = read(path, TOP + "a,b,\n" * 3 + '"c, d","e",\n')
    assert cells(everywhere) == [*[(n, "a", "b") for n in (2, 3, 4)], (5, "c, d", "e")]


@pytest.mark.parametrize(
    "again",
    [
        TOP,
        "\ufeff" + TOP,
        '\ufeff"原始查询","改写查询"\n',
        "原始查询 ,改写查询（必填）\n",
        "原始查询,改写查询,\n",
        "原始查詢,改寫查詢\n",
        "Query,rewritten_query\n",
    ],
)
def test_headings_in_the_middle_are_no_row(path: Path, again: str) -> None:
    notes: list[str] = []
    rows = read(path, TOP + "a,b\n" + again + "c,d\n" + again + "原始查询,e\n", notes=notes)
    assert cells(rows) == [(2, "a", "b"), (4, "c", "d"), (6, "原始查询", "e")]
    assert notes == [f"{path}: 2 more headings in the middle: no rows"]


@pytest.mark.parametrize("other", ["改写查询,原始查询\n", "编号,原始查询,改写查询\n", "id,query,rewrite,x\n"])
def test_headings_of_other_columns_in_the_middle_end_the_file(path: Path, other: str) -> None:
    path.write_text(TOP + "a,b\n" + other + "c,d\n", encoding="utf-8")
    batches = read_csv(path, SourceSettings(), REQUIRED)
    assert next(batches)["original_query"].to_pylist() == ["a"]
    with pytest.raises(BadInput, match="row 3: headings again, of other columns than above"):
        next(batches)


def test_numbers_that_excel_was_told_to_leave_alone(path: Path) -> None:
    text = TOP.replace("\n", ",编号\n") + '="鱼油",b,="1234567890123456789"\n"=""钙""","=""x""""y""",17\n=1+1,="a,b\n'
    rows = read(path, text)
    assert [(row["original_query"], row["rewritten_query"], row["query_id"]) for row in rows] == [
        ("鱼油", "b", "1234567890123456789"),
        ("钙", 'x"y', "17"),
        ("=1+1", '="a', "b"),
    ]


def test_a_giant_row_is_named(path: Path) -> None:
    with pytest.raises(BadInput, match="a row after row 11 is longer than 2 MiB: is a quote never closed"):
        read(path, TOP + "a,b\n" * 10 + 'c,"' + "x" * (20 << 20) + "\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"\n , \n", "the file is empty"),
        (b"\xff\xff", "which encoding is this?"),
        (random.Random(0).randbytes(3000), "which encoding is this?"),
        (TOP.encode(), "no row below the headings"),
        (b"query,other\na,b\n", "no column rewritten_query (columns: query, other)"),
        (b"query,original_query,rewrite\na,b,c\n", "two columns mean original_query: 'query' and 'original_query'"),
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


@pytest.mark.parametrize(
    "rounded", ["4.20E+18", " 1.99472E+18 ", "1,99E+18", "2E+15", "-4.2e+18", "1.99472E18", "1994723847123450000"]
)
def test_an_id_that_a_spreadsheet_rounded_refuses_its_row(path: Path, rounded: str) -> None:
    text = TOP.replace("\n", ",query_id\n") + f'鱼油,用法,"{rounded}"\n钙片,吃法,1994723847123456789\n'
    refused, exact = read(path, text)
    said = f"query_id: rounded by Excel ({rounded.strip()}): format the column as text"
    assert refused["refused"] == said and (exact["refused"], exact["query_id"]) == ("", "1994723847123456789")


@pytest.mark.parametrize("written", ["5e10", "4E20A", "0042", "1500000000000000", "1e5f", "E+18"])
def test_other_ids_are_as_they_are_written(path: Path, written: str) -> None:
    [row] = read(path, TOP.replace("\n", ",query_id\n") + f"鱼油,用法,{written}\n")
    assert (row["refused"], row["query_id"]) == ("", written)


# Python and many editors break lines at all of these; a CSV, a log and a qrels do at \\n and \\r alone.
BREAKS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029"


@pytest.mark.parametrize("character", BREAKS)
def test_other_line_breaks_within_a_text_are_white_space(tmp_path: Path, character: str) -> None:
    query, rewrite = f"鱼油{character}怎么吃", f"鱼油{character}{character}用法"
    table, log, qrels = tmp_path / "a.csv", tmp_path / "a.jsonl", tmp_path / "qrels.tsv"
    rows = read(table, f"{TOP}{query},{rewrite}\n钙片,吃法\n")
    log.write_text(
        "\n".join(
            json.dumps({"query": query, "改写": rewrite} | more, ensure_ascii=False) for more in ({}, {"记录": None})
        ),
        encoding="utf-8",
    )
    lines = [row for batch in read_logs(log, SourceSettings(), ()) for row in batch.to_pylist()]
    assert [row["row"] for row in rows] == [2, 3] and [row["row"] for row in lines] == [1, 2]
    for row in (rows[0], *lines):
        assert not row["refused"]
        assert normalise_line(row["original_query"]) == "鱼油 怎么吃"
        assert normalise_line(row["rewritten_query"]) == "鱼油 用法"
    qrels.write_text(f"q{character}1\td1\t1\nq2\td2\t1\n", encoding="utf-8")
    assert list(read_qrels(qrels).values()) == [("d1",), ("d2",)]


def test_what_has_no_look_is_no_part_of_a_number_a_truth_value_or_an_id(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,id,top1_score,success,时间\n鱼油,17\ufeff,0.9\u200b,TRUE\ufeff,2026-01-02\ufeff\n")
    [row] = [row for batch in read_csv(path, SourceSettings(), ("original_query",)) for row in batch.to_pylist()]
    assert (row["refused"], row["query_id"], row["top1_score"], row["success"]) == ("", "17", 0.9, True)
    assert row["timestamp"] == "2026-01-02T00:00:00"


def test_of_one_column_only_the_same_words_are_its_headings_again(tmp_path: Path) -> None:
    path, notes = tmp_path / "a.csv", list[str]()
    path.write_text("query\n鱼油怎么吃\n问题\nQuestion\nquery\n", encoding="utf-8")
    rows = [row for batch in read_csv(path, SourceSettings(), ("original_query",), notes) for row in batch.to_pylist()]
    assert [row["original_query"] for row in rows] == ["鱼油怎么吃", "问题", "Question"]
    assert notes == [f"{path}: 1 more headings in the middle: no rows"]
