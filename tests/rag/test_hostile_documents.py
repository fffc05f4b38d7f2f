"""Documents that lie, bombs and names that are no names: each is one line, and none takes its reader along."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import xlsxwriter

from rag.documents.document_name import document_name
from rag.documents.read_documents import find_documents, read_documents
from rag.documents.reader_process import Limits, read_in_process
from rag.documents.records import Document, IngestError
from tests.support.minimal_pdf import stream, text_operators, write_objects, write_pdf

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
SHEET = "xl/worksheets/sheet1.xml"
EXHAUSTS = "damaged, or made to exhaust its reader"


def read(path: Path, name: str = "") -> list[Document]:
    return list(read_documents(path, name or path.name))


def refusal(path: Path, name: str = "") -> str:
    """The one line that refuses the document, without the name that it begins with."""
    with pytest.raises(IngestError) as error:
        read(path, name)
    line = str(error.value)
    assert line.startswith(f"{name or path.name}: ") and "\n" not in line and str(path.parent) not in line
    return line.removeprefix(f"{name or path.name}: ")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../a.txt",
            "a/../../b.txt",
            "..\\a.txt",
            "/etc/passwd.txt",
            "C:\\a.txt",
            "\\\\host\\a.txt",
            "a//b.txt",
            "a.txt/",
        ),
        *("a\0.txt", "a\n.txt", "a\x1b[31m.txt", "a\u2028.txt", "a\ud800.txt", "", " ", ".", "a" * 509 + ".txt"),
    ],
)
def test_a_name_that_is_no_relative_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(IngestError, match="a document's name") as error:
        next(read_documents(write(tmp_path / "a.txt", b"text"), name))
    assert str(error.value).isascii() and str(error.value).isprintable()


def test_names_are_posix_paths_in_nfc() -> None:
    assert document_name("产品\\鱼油　说明.txt") == "产品/鱼油　说明.txt"
    assert document_name("./e\u0301.txt") == "é.txt"
    assert document_name("a..b.txt") == "a..b.txt"


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")), b"text")
    with pytest.raises(IngestError, match="a document's name"):
        find_documents(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.pdf", "a.xlsx"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(write(tmp_path / "upload", b""), name) == "the file is empty"


@pytest.mark.parametrize("text", [" \n\n", "\ufeff", "——！\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_text_file_without_any_word_is_refused(tmp_path: Path, name: str, text: str) -> None:
    said = "holds no text" if text.strip() else "the file is empty"
    assert refusal(write(tmp_path / "upload", text.encode()), name) == said


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.txt") == "No such file or directory"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pdf", b"hello", "no .pdf file: it begins with b'hello'"),
        ("a.xlsx", b"%PDF-1.7", "no .xlsx file: it begins with b'%PDF-1.7'"),
        ("a.txt", b"%PDF-1.7\n", "no .txt file"),
        ("a.md", b"PK\x03\x04abc", "no .md file"),
        ("a.jsonl", OLE, "no .jsonl file"),
        ("a.txt", b"\x7fELF\0\0\0", "holds NUL characters"),
        ("a.txt", "没有标记\n".encode("utf-16-le"), "which encoding is this?"),
        ("a.txt", b"\xff\xd8\xff\xe0JFIF", "which encoding is this?"),
        ("a.txt", b"\xff\xfea", "row 1: bytes that are no text"),
        ("a.exe", b"MZ", "of no kind that can be read"),
        ("a", b"text", "of no kind that can be read"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_refused(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    assert refusal(write(tmp_path / "upload", data), name).startswith(reason)


@pytest.mark.parametrize(
    ("corpus", "problem"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', "row 2: _id 'a' was given before"),
        ('{"_id": "a", "text": "x"}\n\n{"text": "y"}', "row 3: _id is missing"),
        ('{"_id": true, "text": "x"}', "row 1: _id is missing"),
        ('{"_id": "a\\u001b", "text": "x"}', "row 1: _id is longer than 512 characters or holds control"),
        ('{"_id": "a"}', "row 1: text is missing"),
        ('{"_id": "a", "text": "x", "title": []}', "row 1: title is no text"),
        ('{"_id": "a", "text": "x", "questions": "y"}', "row 1: questions is no list of texts"),
        ("{oops", "row 1: not JSON"),
        ("[1]", "row 1: expected an object, found list"),
        ("[" * 200_000, "row 1: not JSON that can be read"),
        ('{"_id": ' + "1" * 10_000 + "}", "row 1: not JSON that can be read"),
        ('{"_id": "a", "text": "' + "x" * (16 << 20), "row 1: longer than 16777216 characters"),
    ],
)
def test_a_bad_corpus_is_named_with_its_row(tmp_path: Path, corpus: str, problem: str) -> None:
    assert refusal(write(tmp_path / "corpus.jsonl", corpus.encode())).startswith(problem)


def test_text_that_cannot_be_stored_is_replaced(tmp_path: Path) -> None:
    row = {"_id": "a", "text": "x\ud83d\0y", "questions": ["\udc00"]}
    ((passage,),) = (document.passages for document in read(write(tmp_path / "a.jsonl", json.dumps(row).encode())))
    assert (passage.content, passage.questions) == ("x\ufffd\ufffdy", ("\ufffd",))


@pytest.mark.parametrize("piece", ["> ", "- ", "[", "`", "|a", "<!--", "~~~\n", "[a]: <", "#", "\u0301", "。”", ".'"])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_repeated_marks_are_read_or_hold_no_text(tmp_path: Path, piece: str, name: str) -> None:
    text = piece * (100_000 // len(piece)) + "\n\n尾"
    try:
        (document,) = read(write(tmp_path / name, text.encode()))
    except IngestError as error:
        assert "holds no text" in str(error)
    else:
        assert document.passages and max(len(passage.content) for passage in document.passages) <= 300


def test_a_scan_and_an_encrypted_pdf_say_what_they_are(tmp_path: Path) -> None:
    assert refusal(write_pdf(tmp_path / "a.pdf", [[], []])) == "holds no text: a scan? Recognise its text (OCR) first"
    locked = b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"41" * 32, b"42" * 32)
    page = stream(text_operators(["鱼油"]))
    assert "encrypted" in refusal(write_objects(tmp_path / "a.pdf", [page], trailer=locked))


def test_damaged_pdfs_are_refused(tmp_path: Path) -> None:
    whole = write_pdf(tmp_path / "a.pdf", [["鱼油"]] * 3).read_bytes()
    assert refusal(write(tmp_path / "a.pdf", whole[:900])) == "no readable PDF: damaged"
    assert refusal(write(tmp_path / "a.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 100)) == "no readable PDF: damaged"


def gigabyte_in_two_filters() -> bytes:
    return stream(zlib.compress(b" " * (1 << 30)), 1).replace(b"[/FlateDecode]", b"[/FlateDecode/FlateDecode]")


def twenty_million_characters() -> bytes:
    return stream(b"BT /F 12 Tf 50 780 Td " + b"<9c7c6cb9> Tj " * 10_000_000 + b"ET", 2)


@pytest.mark.parametrize(
    "bomb", [pytest.param(gigabyte_in_two_filters, marks=pytest.mark.full), twenty_million_characters]
)
def test_a_pdf_bomb_ends_its_own_process_only(tmp_path: Path, bomb: Callable[[], bytes]) -> None:
    path = write_objects(tmp_path / "a.pdf", [bomb()])
    assert path.stat().st_size < 50_000
    assert refusal(path) == EXHAUSTS


def test_pages_that_a_pdf_only_claims_are_refused_or_not_counted(tmp_path: Path) -> None:
    page = stream(text_operators(["鱼油"]))
    path = write_objects(tmp_path / "a.pdf", [page], count=9_000)
    assert refusal(path) == "page 2 cannot be read: damaged"
    path = write_objects(tmp_path / "a.pdf", [page], count=10_000_000)
    assert [p.content for p in read(path)[0].passages] == ["鱼油"]
    path = write_objects(tmp_path / "a.pdf", [page] * 10_001)
    assert refusal(path) == "says it has 10001 pages, of at most 10000: split it"


def test_deep_nesting_in_a_pdf_is_survived(tmp_path: Path) -> None:
    deep = b"/A" + b"<</A" * 200_000 + b">>" * 200_000
    path = write_objects(tmp_path / "a.pdf", [stream(text_operators(["鱼油"]))], trailer=deep)
    assert [p.content for p in read(path)[0].passages] == ["鱼油"]
    for operator in (b"q ", b"[", b"<<"):
        assert "holds no text" in refusal(write_objects(tmp_path / "a.pdf", [stream(operator * 3_000_000, 2)]))


def test_a_reader_that_works_or_waits_too_long_is_ended(tmp_path: Path) -> None:
    path = write_objects(tmp_path / "a.pdf", [twenty_million_characters()])
    with pytest.raises(IngestError, match=r"a.pdf: takes too long to read"):
        read_in_process(path, "a.pdf", Limits(memory=16 << 30, cpu=1))
    os.mkfifo(tmp_path / "a.xlsx")
    with pytest.raises(IngestError, match=r"a.xlsx: takes longer than 1 s to read"):
        read_in_process(tmp_path / "a.xlsx", "a.xlsx", Limits(wall=1))


def faq(path: Path, parts: dict[str, tuple[str, str]] | None = None) -> Path:
    """A workbook of one question; in each of its parts named, a text is put before another."""
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["Q", "A"])
        sheet.write_row(1, 0, ["question", "answer"])
    with zipfile.ZipFile(path) as whole:
        contents = {name: whole.read(name).decode() for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        for name, content in contents.items():
            before, added = (parts or {}).get(name, ("", ""))
            changed.writestr(name, content.replace(before, added + before, 1) if before else content)
    return path


def test_workbooks_that_are_none_are_refused(tmp_path: Path) -> None:
    whole = faq(tmp_path / "a.xlsx").read_bytes()
    assert len(read(tmp_path / "a.xlsx")) == 1
    assert refusal(write(tmp_path / "a.xlsx", whole[:-300])).startswith("no readable workbook: damaged")
    assert refusal(write(tmp_path / "a.xlsx", b"PK\x03\x04" + bytes(500))).startswith("no readable workbook: damaged")
    assert refusal(write(tmp_path / "a.xlsx", OLE + bytes(5000))).startswith(
        "no readable workbook: protected by a password, or damaged"
    )
    with xlsxwriter.Workbook(str(tmp_path / "b.xlsx")) as book:
        book.add_worksheet().write_row(0, 0, ["产品", "价格"])
    assert refusal(tmp_path / "b.xlsx") == "no sheet has the headings 问题 (or question) and 答案 (or answer)"


def test_a_workbook_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = faq(tmp_path / "a.xlsx", {SHEET: ("</sheetData>", " " * 300_000_000)})
    assert refusal(path) == "unpacks to 286 MiB: not read"
    lying = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = -1
        while (at := lying.find(signature, at + 1)) >= 0:
            lying[at + place : at + place + 4] = struct.pack("<I", 1000)
    assert refusal(write(tmp_path / "a.xlsx", bytes(lying))).startswith("no readable workbook: damaged")


def test_a_workbook_that_needs_absurd_memory_ends_its_own_process_only(tmp_path: Path) -> None:
    far = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    assert refusal(faq(tmp_path / "a.xlsx", {SHEET: ("</sheetData>", far)})) == EXHAUSTS


def test_one_text_in_many_cells_is_more_than_a_document_holds(tmp_path: Path) -> None:
    rows = "".join(
        f'<row r="{n}"><c r="A{n}" t="s"><v>2</v></c><c r="B{n}" t="s"><v>3</v></c></row>' for n in range(3, 5000)
    )
    parts = {SHEET: ("</sheetData>", rows), "xl/sharedStrings.xml": ("answer</t>", "鱼油" * 16_000)}
    assert refusal(faq(tmp_path / "a.xlsx", parts)) == "holds more text than one document may: split it"


def test_entities_in_a_workbook_are_not_expanded(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE z [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)
    )
    path = faq(tmp_path / "a.xlsx", {"xl/sharedStrings.xml": ("<sst", laughs + "]>")})
    (document,) = read(path)
    assert document.passages[0].content == "question\nanswer"
