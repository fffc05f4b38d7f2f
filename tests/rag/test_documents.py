"""Files → documents: what becomes a passage, where it is cut, what it is called."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import xlsxwriter
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from rag.documents.garbled_text import unreadable
from rag.documents.read_documents import SUFFIXES, find_documents, read_documents
from rag.documents.records import Document, IngestError
from rag.documents.snippets import OVERLAP, SNIPPET_LENGTH, split_snippets
from rag.documents.tokenizer import tokenize
from tests.support.minimal_pdf import write_pdf


def read(path: Path, name: str = "") -> list[Document]:
    return list(read_documents(path, name or path.name))


def contents(path: Path) -> list[str]:
    (document,) = read(path)
    assert [p.key for p in document.passages] == [f"{path.name}#{n + 1}" for n in range(len(document.passages))]
    return [passage.content for passage in document.passages]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def write_sheets(path: Path, *sheets: list[list[Any]]) -> Path:
    with xlsxwriter.Workbook(str(path)) as book:
        for rows in sheets:
            sheet = book.add_worksheet()
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    return path


def test_tokens_are_words_and_character_ngrams() -> None:
    tokens = tokenize("辅酶Q10怎么服用")
    assert {"服用", "服", "用", "怎么", "q10"} <= set(tokens)
    assert {"omega", "omega3", "1.5", "g", "1.5g"} <= set(tokenize("Omega-3 1.5 g"))
    assert tokenize("taking capsules") == tokenize("Takes a capsule")[::2] == ["take", "capsul"]
    assert tokenize("Ｑ１０") == ["q10", "10"] and tokenize("витамин С") == ["витамин", "с"]
    assert tokenize("？！ … _") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("iPhone14", "iPhone 14"),
        ("iPhone14", "ｉＰｈｏｎｅ－１４"),
        ("SKUA1004", "SKU-A1004"),
        ("SKUA1004", "sku_a1004"),
        ("SKUA1004", "SKU-A-1004"),
        ("SKUA1004", "SKU A1004"),
        ("B12", "維生素 B-12"),
        ("400IU", "400 iu"),
        ("13800138000", "138-0013-8000"),
        ("13800138000", "138 0013 8000"),
        ("1280", "1,280元"),
        ("COVID-19", "covid19"),
        ("WiFi", "Wi-Fi"),
        ("20240115", "2024-01-15"),
    ],
)
def test_codes_written_apart_and_in_one_piece_share_the_whole(one: str, other: str) -> None:
    whole = "".join(character for character in one.lower() if character.isalnum())
    assert whole in tokenize(one) and whole in tokenize(other)


def test_a_part_of_a_code_is_a_token_and_words_are_not_glued() -> None:
    assert {"iphon", "14"} <= set(tokenize("iPhone14手机壳"))
    assert "14pro" in tokenize("iPhone 14 Pro") and "14pro" in tokenize("iPhone14Pro")
    assert tokenize("fish oil daily") == ["fish", "oil", "daili"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("鈣片", "钙片"),
        ("維生素軟膠囊", "维生素软胶囊"),
        ("孕婦能吃嗎", "孕妇能吃吗"),
        ("鱼\u200b油", "鱼油"),
        ("\ud800鱼", "鱼"),
    ],
    ids=ascii,
)
def test_traditional_and_invisible_characters_count_as_what_is_meant(typed: str, meant: str) -> None:
    assert tokenize(typed) == tokenize(meant)


def joined(snippets: list[str]) -> str:
    """The text again, without what each snippet repeats of the one before."""
    text = snippets[0]
    for before, snippet in pairwise(snippets):
        repeated = next((n for n in range(OVERLAP, 0, -1) if before.endswith(snippet[:n])), 0)
        text += snippet[repeated:]
    return text


def test_snippets_are_whole_sentences_that_overlap_and_lose_nothing() -> None:
    text = "".join(f"第{n}位客人问：“鱼油和钙片能一起吃吗？”医生说可以！" for n in range(60))
    snippets = split_snippets(text)
    assert max(map(len, snippets)) <= SNIPPET_LENGTH and len(snippets) > 5
    assert all(snippet[-1] in "”！" for snippet in snippets)
    for before, snippet in pairwise(snippets):
        assert any(before.endswith(snippet[:n]) for n in range(10, OVERLAP + 1))
    assert joined(snippets) == text


def test_english_sentences_end_at_a_full_stop_but_numbers_and_list_marks_do_not() -> None:
    snippets = split_snippets("Take 1.5 g of fish oil every day. " * 40)
    assert len(snippets) > 1 and all(s.endswith("day.") and s.startswith("Take") for s in snippets)
    listed = split_snippets("".join(f"1. {'甲' * 70}\n" for _ in range(8)))
    assert len(listed) > 1 and all(s.startswith("1. 甲") and s.endswith("甲") for s in listed)


def test_a_sentence_too_long_is_cut_after_a_comma_or_else_hard() -> None:
    clauses = split_snippets("这一分句里没有句号可以断开，" * 40)
    assert len(clauses) > 1 and all(s.endswith("，") and s.startswith("这") for s in clauses)
    assert split_snippets("无" * 700) == ["无" * 300, "无" * 300, "无" * 100]


@pytest.mark.parametrize("character", ["👩‍👩‍👧", "🇨🇳", "👍🏽", "e\u0301"])
def test_a_hard_cut_parts_no_character(character: str) -> None:
    for shift in range(len(character)):
        snippets = split_snippets("x" * shift + character * 200)
        assert "".join(snippets) == "x" * shift + character * 200
        assert all(s.endswith(character) for s in snippets)


def test_text_files_become_snippets_of_paragraphs_or_lines(tmp_path: Path) -> None:
    faq = write(tmp_path / "产品" / "faq.txt", "鱼油随餐吃。\r\n——！\r\n钙片睡前吃。\r\n")
    (document,) = read(faq, "产品/faq.txt")
    assert [(p.key, p.content) for p in document.passages] == [
        ("产品/faq.txt#1", "鱼油随餐吃。"),
        ("产品/faq.txt#3", "钙片睡前吃。"),
    ]
    paragraph = "第一句话讲鱼油。" * 30 + "\n换行不断段。"
    assert contents(write(tmp_path / "paragraphs.txt", f"{paragraph}\n\n第二段。")) == [paragraph, "第二段。"]


LEGACY = [
    ("big5", "魚油隨餐吃，鈣片睡前吃。"),
    ("shift_jis", "フィッシュオイルは食後に飲みます。"),
    ("euc_kr", "오메가쓰리는 식사와 함께 드세요."),
]
UNMARKED = [(encoding, "Take fish oil with food. 鱼油随餐吃。") for encoding in ("utf-16-le", "utf-16-be", "utf-32-le")]
MARKED = [(encoding, "鱼油随餐吃。") for encoding in ("utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-32")]


@pytest.mark.parametrize(("encoding", "text"), [*MARKED, *UNMARKED, *LEGACY])
@pytest.mark.parametrize("suffix", [".txt", ".md", ".jsonl"])
def test_text_is_read_in_any_encoding_and_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, text: str, suffix: str
) -> None:
    row = json.dumps({"_id": "a", "text": text}, ensure_ascii=False) if suffix == ".jsonl" else text
    path = write(tmp_path / f"a{suffix}", row, encoding)
    assert [p.content for document in read(path) for p in document.passages] == [text]
    assert ("read as" in caplog.text) is (not encoding.startswith("utf-8"))


def test_a_text_of_several_encodings_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(
        "鱼油随餐吃。\n".encode() + "钙片什么时候吃好，睡前吃。\n".encode("gb18030") + "维生素早上吃。\n".encode()
    )
    assert contents(path) == ["鱼油随餐吃。", "钙片什么时候吃好，睡前吃。", "维生素早上吃。"]


def test_markdown_sections_stand_under_the_path_of_their_headings(tmp_path: Path) -> None:
    text = """---
title: 手册
---
# 产品

## 鱼油

鱼油随**餐**服用。

- 每日两粒
- 饭后

## 钙片

睡前服用。

电话
====
# 地址 ##
"""
    assert contents(write(tmp_path / "a.md", text)) == [
        "产品 > 鱼油\n鱼油随**餐**服用。\n\n- 每日两粒\n- 饭后",
        "产品 > 钙片\n睡前服用。",
        "电话",
        "地址",
    ]


def test_markdown_code_and_tables_stay_whole_and_long_tables_repeat_their_heading(tmp_path: Path) -> None:
    code = "```sh\n# no heading。\nrun a; run b!\n```"
    head = "| 产品 | 用法 |\n|---|---|"
    rows = [f"| 第{n}种产品 | 随餐服用。每日{n}粒。 |" for n in range(40)]
    prose = "说明文字。" * 50
    text = f"# 用法\n\n{prose}\n\n{code}\n\n{head}\n{rows[0]}\n\n{prose}\n\n{head}\n" + "\n".join(rows)
    snippets = contents(write(tmp_path / "a.md", text))
    assert snippets[1:3] == [f"用法\n{code}", f"用法\n{head}\n{rows[0]}"]
    tables = snippets[4:]
    assert len(tables) > 1 and all(table.startswith(f"用法\n{head}\n| 第") for table in tables)
    assert [row for table in tables for row in table.split("\n")[3:]] == rows
    assert max(map(len, snippets)) <= SNIPPET_LENGTH


def write_corpus(folder: Path, texts: dict[str, str], title: str = "") -> Path:
    rows = [json.dumps({"_id": doc_id, "title": title, "text": text}) for doc_id, text in texts.items()]
    return write(folder / "corpus.jsonl", "\n".join(rows))


def test_beir_documents_keep_their_id_and_stay_whole(tmp_path: Path) -> None:
    long_text = "鱼油的吃法。\u2028" * 200
    documents = read(write_corpus(tmp_path, {"a": long_text, "b": " ", "../c": "钙片"}, title="说明"))
    assert [(d.name, d.passages[0].key) for d in documents] == [("a", "a"), ("b", "b"), ("../c", "../c")]
    assert documents[0].passages[0].content == f"说明\n{long_text}".strip()
    assert [d.name for d in read(write_corpus(tmp_path, {"a": "x", "b": " ", "c": "——！"}))] == ["a"]


def test_beir_rows_may_bring_questions(tmp_path: Path) -> None:
    row = {"_id": 7, "text": "随餐服用。", "questions": ["鱼油怎么吃", " "]}
    (document,) = read(write(tmp_path / "x.jsonl", json.dumps(row, ensure_ascii=False), "gb18030"))
    assert document.name == "7" and document.passages[0].questions == ("鱼油怎么吃",)


def test_beir_rows_are_read_one_by_one(tmp_path: Path) -> None:
    corpus = write(tmp_path / "x.jsonl", '{"_id": "a", "text": "x"}\n{oops')
    documents = read_documents(corpus, "x.jsonl")
    assert next(documents).name == "a"
    with pytest.raises(IngestError, match=r"x.jsonl: row 2: not JSON"):
        next(documents)


def test_a_faq_workbook_gives_answers_with_their_questions(tmp_path: Path) -> None:
    first: list[list[Any]] = [
        ["常见问题 2026 版"],
        [],
        ["序号", "相似问法1", "问题", "答案", "相似问法2"],
        [1, "鱼油几时吃；鱼油饭前吃吗", "鱼油怎么吃？", "随餐服用。", "怎么服用\n鱼油怎么吃？|用法"],
        [2, None, "多少钱", 128, None],
        [3, None, "还没有答案", None, None],
        [4, None, "长答案？", "每次吃两粒，饭后吃。" * 60, "详细点"],
    ]
    book = write_sheets(tmp_path / "faq.xlsx", first, [["说明"]], [["Question", "Answer"], ["Q10?", "Daily."]])
    (document,) = read(book)
    short, price, *long, english = document.passages
    assert short.content == "鱼油怎么吃？\n随餐服用。"
    assert short.questions == ("鱼油怎么吃？", "鱼油几时吃", "鱼油饭前吃吗", "怎么服用", "用法")
    assert price.content == "多少钱\n128"
    assert len(long) > 2 and all(p.content.startswith("长答案？\n每次") and len(p.content) <= 300 for p in long)
    assert [p.questions for p in long] == [("长答案？", "详细点"), *[()] * (len(long) - 1)]
    assert (english.key, english.content) == (f"faq.xlsx#{len(document.passages)}", "Q10?\nDaily.")


def test_merged_answers_count_for_each_question_and_hidden_sheets_do_not(tmp_path: Path) -> None:
    with xlsxwriter.Workbook(str(tmp_path / "faq.xlsx")) as book:
        sheet = book.add_worksheet()
        sheet.write_row("B2", ["问", "答"])
        sheet.write_column("B3", ["甲", "乙"])
        sheet.merge_range("C3:C4", "同一个答案")
        hidden = book.add_worksheet()
        hidden.write_row(0, 0, ["问", "答"])
        hidden.write_row(1, 0, ["内部", "内部"])
        hidden.hide()
    assert contents(tmp_path / "faq.xlsx") == ["甲\n同一个答案", "乙\n同一个答案"]


def test_pdf_lines_join_over_breaks_and_headers_go(tmp_path: Path) -> None:
    bodies = [
        ["鱼油是从深海鱼中提取的脂肪酸，成分是EPA和", "DHA，适合血脂偏高的成年人日常服用，请坚持", "随餐吃。"],
        ["二、用法", "每日两粒，与含有脂肪的食物一起服用，吸收更", "好，切勿空腹⽤药；孕妇与哺乳期的女性请在服"],
        [
            "用之前问医生。",
            "Take it with food every day and drink wa-",
            "ter after each meal.",
            "三、价格. . . . . . 7",
        ],
    ]
    pages = [["五医产品手册", *body, f"第 {n} 页 共 3 页"] for n, body in enumerate(bodies, start=1)]
    assert contents(write_pdf(tmp_path / "a.pdf", pages)) == [
        "鱼油是从深海鱼中提取的脂肪酸，成分是EPA和DHA，适合血脂偏高的成年人日常服用，请坚持随餐吃。\n二、用法\n"
        "每日两粒，与含有脂肪的食物一起服用，吸收更好，切勿空腹用药；孕妇与哺乳期的女性请在服用之前问医生。\n"
        "Take it with food every day and drink water after each meal.\n三、价格 7"
    ]


def test_pdf_with_embedded_fonts_is_read(tmp_path: Path) -> None:
    with matplotlib.rc_context({"pdf.fonttype": 42}), PdfPages(tmp_path / "a.pdf") as pdf:
        figure = Figure()
        figure.text(0.1, 0.5, "Fish oil: two capsules a day.")
        pdf.savefig(figure)
    assert contents(tmp_path / "a.pdf") == ["Fish oil: two capsules a day."]


def test_a_folder_is_read_by_suffix_and_a_corpus_stands_alone(tmp_path: Path) -> None:
    for name in ("b.TXT", "产品/a.md", ".git/x.txt", "~$faq.xlsx", "queries.jsonl", "qrels.tsv"):
        write(tmp_path / name, "文字")
    (tmp_path / "empty.txt").touch()
    decomposed = unicodedata.normalize("NFD", "é.txt")
    write(tmp_path / decomposed, "文字")
    found = find_documents(tmp_path)
    assert sorted(name for _, name in found) == sorted(["b.TXT", "é.txt", "产品/a.md"])
    assert all(len(read(path, name)) == 1 for path, name in found)
    corpus = write_corpus(tmp_path, {"a": "x"})
    assert find_documents(tmp_path) == [(corpus, "corpus.jsonl")]


def test_a_folder_without_documents_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(IngestError) as error:
        find_documents(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: holds neither corpus.jsonl nor any ")
    assert all(suffix in str(error.value) for suffix in SUFFIXES)
    with pytest.raises(IngestError, match="no such folder"):
        find_documents(tmp_path / "missing")


def test_two_names_that_differ_in_encoding_only_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "é.txt", "a")
    write(tmp_path / unicodedata.normalize("NFD", "é.txt"), "b")
    with pytest.raises(IngestError, match=r"é.txt: two files of this name"):
        find_documents(tmp_path)


def read_file(path: Path) -> list[str]:
    return [passage.content for document in read_documents(path, path.name) for passage in document.passages]


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (0.15, "0%", "15%"),
        (0.155, "0.0%", "15.5%"),
        (42, "00000", "00042"),
        (1234.5, "#,##0.00", "1,234.50"),
        (3, "0.00", "3.00"),
        (99, '"¥"0.00', "¥99.00"),
        (99, '0"粒"', "99粒"),
        (-0.2, "0%", "-20%"),
        (12, "0.##", "12"),
    ],
)
def test_a_workbooks_numbers_are_read_as_excel_shows_them(tmp_path: Path, value: float, code: str, text: str) -> None:
    path = tmp_path / "faq.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["问题", "答案"])
        sheet.write(1, 0, "折扣多少")
        sheet.write(1, 1, value, book.add_format({"num_format": code}))
        sheet.write_row(2, 0, ["几粒", 2])
    assert read_file(path) == [f"折扣多少\n{text}", "几粒\n2"]


def test_several_columns_of_answers_are_one_answer(tmp_path: Path) -> None:
    rows = [
        ["问题", "答案1", "答案2", "答案（三）"],
        ["怎么吃", "每日两粒", "随餐", ""],
        ["多少钱", "", "一百元", "两瓶八折"],
    ]
    path = write_sheets(tmp_path / "faq.xlsx", rows)
    assert read_file(path) == ["怎么吃\n每日两粒\n随餐", "多少钱\n一百元\n两瓶八折"]


def test_a_formula_without_its_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "faq.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        other = book.add_worksheet("other")
        other.write_formula(0, 0, "=1+1", None, "")
        sheet = book.add_worksheet("常见问题")
        sheet.write_row(0, 0, ["问题", "答案", "备注"])
        sheet.write_row(1, 0, ["怎么吃", "每日两粒"])
        sheet.write_formula(1, 2, "=1+1", None, "")  # read by nobody
        sheet.write(2, 0, "多少钱")
        sheet.write_formula(2, 1, '=A2&"元"', None, "")
    with pytest.raises(IngestError, match="sheet '常见问题', row 3, column 2: a formula without its value"):
        read_file(path)


READABLE = "鱼油每日两粒，随餐服用。孕妇请先咨询医生，三岁以下儿童不建议食用。" * 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (READABLE, ""),
        ("\uf0b7 " + READABLE, ""),
        ("Les études montrent que l'été à Genève élève la fréquence.", ""),
        ("Omega-3 fatty acids, 1.5 g a day.", ""),
        ("\ue001\ue002\ue003\ue004" * 9, "without characters"),
        ("\ufffd\ufffd鱼\ufffd油" * 9, "without characters"),
        (READABLE.encode().decode("latin-1"), "garbled"),
        (READABLE.encode("gbk").decode("latin-1"), "garbled"),
        (READABLE.encode().decode("gb18030", "ignore"), "garbled"),
        ("锟斤拷锟斤拷鱼油" * 9, "garbled"),
    ],
    ids=range(10),
)
def test_text_that_nobody_can_read_is_told_from_text(text: str, problem: str) -> None:
    assert unreadable(text).startswith(problem) and bool(unreadable(text)) == bool(problem)


def test_entities_of_markdown_are_decoded_outside_code(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "# 鱼&#x6CB9; &amp; 钙片\n\n每日&nbsp;两粒，&#x5BA2;服 &lt;24h。\n\n```\na &amp;&amp; b\n```\n",
        encoding="utf-8",
    )
    (text,) = read_file(path)
    assert "鱼油 & 钙片" in text and "两粒，客服 <24h。" in text and "&nbsp;" not in text
    assert "a &amp;&amp; b" in text
