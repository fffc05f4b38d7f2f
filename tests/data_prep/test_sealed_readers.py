"""The processes that read strangers' files know no secret, have no network, and are not believed."""

import contextlib
import json
import os
import socket
import subprocess
import threading
from array import array
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import xlsxwriter

from data_prep.readers.sheet_process import Mixed, Numbers, Rows, Texts
from data_prep.readers.workbook import _parse, read_workbook
from data_prep.rows.cells import EXPORT
from guard.sealed_process import child_command, child_environment
from rag.documents.reader_process import read_in_process
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

SECRETS = {
    "OPENAI_API_KEY": "sk-s3cret",
    "QDRANT_API_KEY": "s3cret",
    "HTTPS_PROXY": "http://me:s3cret@proxy:1",
    "WANDB_API_KEY": "s3cret",
    "LD_PRELOAD": "",
    "ANYTHING": "s3cret",
}


def large_workbook(path: Path, heading: str) -> Path:
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet()
    for row, values in enumerate([(heading, "答案"), *((f"问题{n}怎么办", f"答案{n}" * 20) for n in range(30_000))]):
        sheet.write_row(row, 0, values)
    book.close()
    return path


def assert_sealed(child: psutil.Process) -> None:
    environment = child.environ()
    assert "s3cret" not in json.dumps(environment)
    assert environment.keys() <= {"PYTHONPATH", "PYTHONUTF8", "LD_LIBRARY_PATH", "TMPDIR", "LC_CTYPE"}
    if network_can_be_taken():
        assert os.readlink(f"/proc/{child.pid}/ns/net") != os.readlink("/proc/self/ns/net")


def child_running(module: str, still_going: Callable[[], bool]) -> psutil.Process:
    """Wait for the child of ours that runs ``module``; other tests may have left other children."""
    while still_going():
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in " ".join(child.cmdline()):
                    return child
    raise AssertionError(f"no child ran {module}")


def network_can_be_taken() -> bool:
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


def test_the_reader_of_exports(tmp_path, monkeypatch):
    path = large_workbook(tmp_path / "bvt.xlsx", "original_query")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    batches = read_workbook(path, SourceSettings(), ("original_query",))
    next(batches)  # it waits for us with the rest
    assert_sealed(child_running("sheet_process", lambda: True))
    batches.close()


def test_the_reader_of_documents(tmp_path, monkeypatch):
    path = large_workbook(tmp_path / "faq.xlsx", "问题")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    reading = threading.Thread(target=read_in_process, args=(path, "faq.xlsx"))
    reading.start()
    child = child_running("reader_process", reading.is_alive)
    while (
        network_can_be_taken()
        and os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink("/proc/self/ns/net")
        and reading.is_alive()
    ):
        pass
    assert_sealed(child)
    reading.join()


def test_a_sealed_process_reaches_nobody_and_keeps_its_limits():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import resource, socket, sys; from guard.sealed_process import seal\n"
            "print(seal(1 << 33, 60), resource.getrlimit(resource.RLIMIT_AS)[1], flush=True)\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5)"
        )
        command = [child_command("x")[0], "-P", "-c", code]
        ended = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    sealed, memory = ended.stdout.split()
    assert memory == str(1 << 33)
    assert sealed == str(network_can_be_taken())
    assert (ended.returncode != 0) == network_can_be_taken(), ended.stderr


OFFSETS = array("i", [0, 2, 4]).tobytes()


@pytest.mark.parametrize(
    "column",
    [
        Texts(b"ab", OFFSETS),
        Texts(b"abcd", OFFSETS[:8]),
        Texts(b"abcd", array("i", [0, 1 << 30, 4]).tobytes()),
        Texts(b"abcd", array("i", [0, -8, 4]).tobytes()),
        Texts(b"abcd", array("i", [3, 2, 4]).tobytes()),
        Texts(b"a\xffcd", OFFSETS),
        Texts(b"", b""),
        Numbers(b"12345678"),
        Numbers(b""),
        Mixed(["one"]),
    ],
)
def test_what_a_reader_says_is_checked(column):
    rows = Rows("sheet", [2, 3], {"original_query": column}, [])
    with pytest.raises(BadInput, match=r"bvt\.xlsx: damaged"):
        _parse(Path("bvt.xlsx"), EXPORT, rows)


def test_a_problem_of_no_row_is_an_error():
    rows = Rows(
        "sheet", [2, 3], {"original_query": Texts("你好".encode(), array("i", [0, 3, 6]).tobytes())}, [(7, "x")]
    )
    with pytest.raises(BadInput, match=r"bvt\.xlsx: damaged"):
        _parse(Path("bvt.xlsx"), EXPORT, rows)
