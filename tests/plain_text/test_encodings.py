"""Text of any encoding is read right, or refused in one line: whole files, mixed files, damaged lines."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from opencc import OpenCC

from data_prep.clicks.intake import read_corpus
from data_prep.readers.csv_file import read_csv
from data_prep.readers.qrels import read_qrels
from plain_text.encodings import LOST, Utf8Lines, find_legacy
from plain_text.text_file import TextFile
from reward.records.files import BadInput
from reward.settings.data import DeidentifySettings, SourceSettings

SIMPLIFIED = "维生素C怎么吃，孕妇能吃鱼油吗？\n钙片什么时候吃好\n蛋白粉会不会发胖\n"
TRADITIONAL = "維生素C怎麼吃，孕婦能吃魚油嗎？\n鈣片什麼時候吃好\n蛋白粉會不會發胖\n"
JAPANESE = "ビタミンCの飲み方を教えてください\n妊婦は魚油を飲めますか\n"
KOREAN = "비타민은 어떻게 먹나요\n임산부가 오메가쓰리를 먹어도 되나요\n"


def read(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with TextFile(path, BadInput).open() as text:
        return text.read().decode()


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        *((SIMPLIFIED, encoding, "GB18030") for encoding in ("gb18030", "gbk", "gb2312")),
        (TRADITIONAL, "big5", "Big5"),
        (TRADITIONAL, "cp950", "Big5"),
        (TRADITIONAL * 3, "gbk", "GB18030"),
        (JAPANESE, "shift_jis", "Shift-JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (KOREAN, "euc_kr", "EUC-KR"),
        *((SIMPLIFIED, encoding, "UTF-16") for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        *((SIMPLIFIED, encoding, "UTF-32") for encoding in ("utf-32", "utf-32-le", "utf-32-be")),
        (SIMPLIFIED, "utf-8", "UTF-8"),
        (SIMPLIFIED, "utf-8-sig", "UTF-8"),
    ],
)
@pytest.mark.parametrize("times", [1, 200])
def test_every_encoding_is_read_and_said(tmp_path: Path, text: str, encoding: str, name: str, times: int) -> None:
    whole = "query,rewrite\n" + text * times
    assert read(tmp_path / "a.csv", whole.encode(encoding)) == whole
    assert TextFile(tmp_path / "a.csv", BadInput).encoding.startswith(name)


def test_a_mark_in_the_middle_and_nuls_at_a_lines_start_go(tmp_path: Path) -> None:
    mark = codecs.BOM_UTF8
    content = b"\0" * 3_000_000 + mark + "问,答\n".encode() + mark + "鱼油,用法\n".encode() + b"\0\0" + b"a,b\n"
    assert read(tmp_path / "a.csv", content) == "问,答\n鱼油,用法\na,b\n"


@pytest.mark.parametrize("others", [1, 3, 50])
def test_of_a_mixed_file_each_line_counts_for_itself(tmp_path: Path, others: int) -> None:
    lines = [SIMPLIFIED.encode("gb18030"), TRADITIONAL.encode("big5"), SIMPLIFIED.encode() * others, b"ascii only\n"]
    assert read(tmp_path / "a.csv", b"".join(lines)) == SIMPLIFIED + TRADITIONAL + SIMPLIFIED * others + "ascii only\n"
    assert TextFile(tmp_path / "a.csv", BadInput).note.count("lines") == 3


def test_a_cut_character_of_utf8_is_never_read_as_another_encoding(tmp_path: Path) -> None:
    cut = "孕妇可以吃鱼油".encode()[:-1] + b"\n"
    for content in (SIMPLIFIED.encode() + cut, SIMPLIFIED.encode("gb18030") * 30 + cut):
        shown = read(tmp_path / "a.csv", content)
        assert LOST in shown and "孕妇可以吃鱼" in shown and SIMPLIFIED in shown
        assert TextFile(tmp_path / "a.csv", BadInput).damaged


@pytest.mark.parametrize(
    "content",
    [
        "Как принимать витамин С\nМожно ли пить рыбий жир беременным женщинам\n".encode("cp1251") * 20,
        "Où acheter\nÉté à la forêt\ncafé noël\n".encode("cp1252") * 20,
        bytes(range(256)) * 50,
    ],
)
def test_what_cannot_be_told_is_asked_back(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput) as problem:
        TextFile(path, BadInput)
    assert str(problem.value).startswith(f"{path}: which encoding is this?") and "\n" not in str(problem.value)


def test_one_short_line_of_a_legacy_encoding() -> None:
    assert find_legacy(["深海鱼油怎么吃".encode("gbk")]) == "gb18030"
    assert find_legacy(["深海魚油怎麼吃".encode("big5")]) == "big5hkscs"


def test_a_big5_export(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("original_query,rewritten_query\r\n維生素C怎麼吃,維生素C 服用方法\r\n".encode("big5"))
    [batch] = read_csv(path, SourceSettings(), ("original_query",))
    assert batch.column("original_query").to_pylist() == ["維生素C怎麼吃"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "big5", "utf-16", "utf-16-le"])
def test_qrels_and_corpora_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    qrels, corpus = tmp_path / "qrels.tsv", tmp_path / "corpus.jsonl"
    qrels.write_bytes("query-id\tcorpus-id\tscore\n17\t文件一\t1\n18\t文件二\t0\n".encode(encoding))
    assert read_qrels(qrels) == {"17": ("文件一",)}
    document = {"_id": "文件一", "text": "每日一次，每次一粒"}
    corpus.write_bytes(f"{json.dumps(document, ensure_ascii=False)}\n".encode(encoding))
    assert read_corpus(corpus, DeidentifySettings()) == {"文件一": "每日一次，每次一粒"}


def test_damaged_qrels_and_corpora_name_their_row(tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_bytes("1\t文档甲乙\t1\n".encode() * 40 + "2\t文档".encode()[:-1] + b"\t1\n")
    with pytest.raises(BadInput, match="row 41: bytes that are no text"):
        read_qrels(path)
    path.write_bytes(b"x\n" + b"\xff\xfe\xfd\xfc\n" * 30)
    for reads in (read_qrels, lambda file: read_corpus(file, DeidentifySettings())):
        with pytest.raises(BadInput, match="which encoding is this"):
            reads(path)


SHORT = (
    "感冒",
    "鱼油",
    "孕妇",
    "钙片",
    "感冒吃什么",
    "维生素",
    "褪黑素",
    "益生菌有用吗",
    "孩子发烧了",
    "胃疼怎么办",
    "影响癫痫治疗的因",
)


def read_as(text: str, encoding: str) -> tuple[str, str]:
    lines = Utf8Lines(iter([text.encode(encoding)]))
    return b"".join(lines).decode(), lines.said


@pytest.mark.parametrize("text", SHORT)
def test_a_few_words_of_chinese_are_read_in_their_encoding(text: str) -> None:
    assert read_as(text, "gbk")[0] == text
    traditional = OpenCC("s2t").convert(text)
    told, said = read_as(traditional, "big5")
    assert told == traditional or "a guess: so short a text may be Big5" in said


@pytest.mark.parametrize("korean", ["감기약", "비타민 먹는 법", "비타민,복용법"])
def test_a_guess_at_a_few_characters_is_called_one(tmp_path: Path, korean: str) -> None:
    said = read_as(f"query\n{korean}\n", "cp949")[1]
    assert "(a guess: so short a text may be " in said and "EUC-KR" in said
    path = tmp_path / "a.csv"
    path.write_bytes(f"query\n{korean}\n".encode("cp949"))
    assert "a guess" in TextFile(path, BadInput).note
    # Enough of it is sure, and so is Chinese that no Korean could be.
    assert read_as("비타민 먹는 법과 복용 시간\n" * 2, "cp949") == (
        "비타민 먹는 법과 복용 시간\n" * 2,
        "EUC-KR 2 lines",
    )
    assert read_as("孕妇可以吃钙片吗\n", "gbk")[1] == "GB18030 1 lines"


CSV = "query,rewritten_query,success\n鱼油怎么吃,鱼油 用法,TRUE\n"
LINE = '{"query": "鱼油怎么吃", "rewritten_query": "鱼油 用法"}'


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            f"\ufeff{CSV}钙片怎么吃,钙片 用法,TRUE\ufeff{CSV}",
            [*CSV.split(), "钙片怎么吃,钙片", "用法,TRUE", *CSV.split()],
        ),
        (f"{LINE}\ufeff{LINE}\n", f"{LINE}\n{LINE}".split()),
        (f"{LINE}\ufeff\r\n{LINE}\ufeff", f"{LINE}\n{LINE}".split()),
        ("query\n鱼\ufeff油\n", ["query", "鱼\ufeff油"]),
    ],
)
def test_a_mark_within_a_line_begins_another_where_files_were_joined(
    tmp_path: Path, text: str, lines: list[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert "".join(TextFile(path, BadInput).lines()).split() == lines
