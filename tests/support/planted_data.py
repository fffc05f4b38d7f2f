"""One person's data, planted everywhere, and a search for it in whatever a command leaves behind."""

from __future__ import annotations

import sqlite3
import stat
import zipfile
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

# What must be found nowhere. Each is unlike anything that a hash, a count or a time may hold.
SECRETS = (
    "13812345678",
    "138-1234-5678",
    "１３９８７６５４３２１",
    "13987654321",
    "11010519491231002X",
    "陈建国",
    "建国路88号",
    "jianguo.chen@example.com",
    "chenjianguo_88",
    "987654329",
    "6222021234567890123",
    "京A12345",
)
WORDS = (
    "陈建国先生，电话13812345678，也可打138-1234-5678或１３９８７６５４３２１，身份证11010519491231002X，"
    "住北京市朝阳区建国路88号院3号楼502室，邮箱jianguo.chen@example.com，微信号chenjianguo_88，QQ：987654329，"
    "银行卡号6222021234567890123，车牌京A12345"
)
ID = "陈建国先生13812345678.pdf#3"


def find_planted(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text or secret.encode("unicode_escape").decode() in text]


def read_artefacts(folder: Path) -> dict[str, str]:
    """Read every file below `folder` as a person could: tables, workbooks and databases unpacked."""
    return {str(path.relative_to(folder)): _text(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def open_modes(folder: Path) -> dict[str, str]:
    """Return what below `folder` others than its owner may read or change."""
    found = {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*") if not path.is_symlink()}
    return {name: oct(stat.S_IMODE(mode)) for name, mode in found.items() if mode & 0o077}


def _text(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    if path.suffix == ".xlsx" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            return "".join(parts.read(name).decode(errors="replace") for name in parts.namelist())
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as db:
            return "\n".join(db.iterdump())
    return path.read_bytes().decode(errors="replace")
