"""What "not recorded" looks like: the one rule for log lines, CSV cells and workbook cells."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from plain_text.marks import bound_marks

# As pandas, NumPy, SQL dumps, spreadsheets, JavaScript and Go write a value that is missing, folded as `_folded` does.
# No customer asks these, and no rewriter answers with them. 无 is a person's answer and stays.
_LINES = (
    "nan -nan +nan 1.#qnan -1.#ind 1.#ind nat <na> na n/a n.a. #n/a #na",
    "null none nil undefined (null) <null> [null] (none) <none> (nil) <nil> [none] \\n \\\\n",
    "#null! #div/0! #value! #ref! #name? #num! #getting_data #spill! #calc!",
    "loading... #error! (blank) (empty) <blank> <empty> #field! #unknown! #blocked! #connect!",
    "inf -inf +inf infinity -infinity +infinity",
    """- -- --- — —— – / ―― ---- ― "" '' "null" "nan" "none" 'null' 'nan' 'none' [] {} () [nan] {null}""",
)
SPELLINGS = frozenset(word for line in _LINES for word in line.split())
# In brackets or without, as systems write them.
_CHINESE = (
    "空 空值 空白 暂无 暂无数据 暂无记录 无数据 无记录 缺失 缺失值 未填 未填写 未记录 不适用",
    "暫無 暫無資料 暫無數據 暫無記錄 無資料 無數據 無記錄 缺值 未填寫 未記錄 不適用",
)
CHINESE = frozenset(word for line in _CHINESE for word in line.split())
BRACKETS = " \t\r\n\u3000\ufeff\u200b()（）<>＜＞《》[]［］【】-—"
# No other spelling holds a Chinese character, and nearly every cell does.
_PLAIN = re.compile(r"[\s\x00-\x7f\xa0\u200b-\u200f\u2010-\u2015\u2212\u3000\ufeff\uff01-\uff5e]*")
# A text with an ASCII letter or digit, or a Chinese character, that is in none of them records something.
_LETTERS = "".join(c for c in map(chr, range(128)) if c.isalnum() and not any(c.lower() in word for word in SPELLINGS))
_LEFT_OUT = [0x33FF, *sorted(map(ord, set("".join(CHINESE)))), 0xA000]
_HANZI = "".join(f"{chr(a + 1)}-{chr(b - 1)}" for a, b in pairwise(_LEFT_OUT) if b - a > 1)
_RECORDED = f"[{_LETTERS}{_HANZI}]"
_LONGEST = max(map(len, SPELLINGS)) + 4  # characters, a little space around them included


def is_missing(cell: object) -> bool:
    """Return whether `cell` records nothing: None, NaN, an infinity, an empty list or object, blank text, or a text
    of `SPELLINGS` in any letter case and width, or of `CHINESE`."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return is_missing_text(cell)
    if isinstance(cell, float | Decimal):
        return not math.isfinite(cell)
    if isinstance(cell, list | tuple | dict | set):
        return not cell
    return type(cell).__name__ in ("NAType", "NaTType")  # what pandas puts into cells


def is_missing_text(text: str) -> bool:
    """Return whether `text` is blank or one of `SPELLINGS` or `CHINESE`."""
    if len(text) > _LONGEST or not _PLAIN.fullmatch(text):
        return not text.strip() or text.strip(BRACKETS) in CHINESE
    folded = _folded(text)
    return not folded or folded in SPELLINGS


def spelled(cell: object) -> str:
    """Return how a missing `cell` is written; "" for one that is there, and for nothing at all: None, blank, an empty
    list or object."""
    if isinstance(cell, float | Decimal):
        return "" if math.isfinite(cell) else str(cell)
    text = cell.strip() if isinstance(cell, str) and is_missing_text(cell) else ""
    return text if _folded(text) not in ("", "[]", "{}") else ""


def without_missing(texts: pa.Array) -> pa.Array:
    """Replace missing texts and nulls of Arrow strings by ""."""
    texts = pc.fill_null(texts, "")
    doubtful = texts.filter(pc.invert(pc.match_substring_regex(texts, _RECORDED))).unique()
    missing = [text for text in doubtful.to_pylist() if text and is_missing_text(text)]
    if not missing:
        return texts
    return pc.if_else(pc.is_in(texts, pa.array(missing, texts.type)), "", texts)


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", bound_marks(text)).casefold()
    return "".join(c for c in plain if unicodedata.category(c) not in ("Cc", "Cf")).strip()
