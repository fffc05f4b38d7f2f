"""Read workbooks (.xlsx, .xlsm, .xls) through a process that may fail (`sheet_process`).

An .xlsx is read cell by cell from its XML (`sheet_xml`), an .xls by calamine (`calamine_book`). pandas would hold every
cell of a sheet as a Python object at once, gigabytes at 200 000 rows with their hits, and knows no hidden sheets and no
merged cells.
"""

from __future__ import annotations

import signal
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from data_prep.readers.sheet_process import (
    LENGTH_BYTES,
    Done,
    Message,
    Mixed,
    Numbers,
    PackedCells,
    Request,
    Rows,
)
from data_prep.rows.cells import EXPORT, Cells, Table
from data_prep.rows.columns import SCORES
from data_prep.rows.headings import FILL, SAY, NoHeadings, known_names
from data_prep.rows.recall_cells import count_cut_off
from guard.sealed_process import child_command, child_environment, warn_of_network
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_MIB = 1 << 20
# Text of queries unpacks to three to ten times its size; styled empty cells, at worst, to a hundred times.
_LARGEST, _LARGEST_RATIO, _RATIO_COUNTS_FROM = 4096 * _MIB, 100, 64 * _MIB
# Bytes of memory for each byte unpacked: calamine holds the shared texts once for themselves and once in their cells.
# The rest is for texts that are in many cells: stored once in the file, but as often as they are seen in memory.
_MEMORY, _MEMORY_SHARED, _MEMORY_SHEETS = 448 * _MIB, 2.2, 1.1
_DAMAGED = "damaged: its reader came to grief over it"
_TOO_LARGE = "needs more memory than a workbook of its size does: damaged, or made to"
_ENDS = {
    -signal.SIGABRT: _TOO_LARGE,
    -signal.SIGKILL: _TOO_LARGE,
    -signal.SIGXCPU: "takes longer than a workbook of its size does: damaged, or made to",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # an .xls, or an encrypted .xlsx
_SHEETS_SHOWN, _SHOWN = 4, 500
_EXACT = 2**53  # above it, not every whole number is one that a workbook can hold
_NO_TEXTS = {*SCORES, "recall_count", "success", "slices", "timestamp", "clicked", "position", "recall_results"}
_SECONDS, _BYTES_A_SECOND = 30, 5_000_000  # of processor time: many times what is needed


def read_workbook(
    path: Path, settings: SourceSettings, required: Sequence[str], notes: list[str] | None = None, table: Table = EXPORT
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of every sheet that names what is required; `row` is the sheet's own row number.

    Hidden sheets count only where no visible one has the columns. A cell merged over several rows counts in each of
    them. Formulas count with the value that was saved with them. A cell of ours that holds an error (#N/A) or a formula
    that was never calculated refuses its row; in an .xls, calamine reads errors as empty. So does a number in the place
    of a text, such as an id, that is too large to be exact. Blank rows are no rows, nor are headings in the middle.

    Args:
        required: columns without which nothing can be done; the first is `original_query`.
        notes: takes a line for each sheet with text that was not read, for headings in the middle, and for recorded
            hits that were cut off.
        table: what is looked for, and what rows are made of it.

    Raises:
        BadInput: there is no such file, it is no workbook, has a password, is damaged or unpacks to absurd sizes; no
            sheet names what is required, or one names it twice; nothing is below the headings. Rows of the sheets
            before a damaged one come first.
    """
    # The reader's process gets limits that fit the workbook, so that a made-up one cannot take the machine.
    shared, others = _unpacked_sizes(path)
    try:
        names = known_names(settings.headings, table.aliases, table.columns)
    except NoHeadings as problem:
        raise BadInput(str(problem)) from None
    request = Request(
        path=str(path),
        names={key: (name.column, name.own) for key, name in names.items()},
        required=tuple(required),
        unpacked=shared + others,
        memory=int(_MEMORY + _MEMORY_SHARED * shared + _MEMORY_SHEETS * others),
        seconds=_SECONDS + (shared + others) // _BYTES_A_SECOND,
    )
    # The process may fail at any sheet: the rows before it are given, the failure is raised at the end.
    rows = 0
    passed: list[str] = []
    failure, cut_off = "", 0
    for message in _messages(path, request):
        if isinstance(message, Done):
            passed, failure = message.passed_over, message.failure
            if not message.sealed:
                warn_of_network()
            continue
        batch, cut = _parse(path, table, message)
        del message  # what waits for its reader is the batch alone
        cut_off += cut
        rows += batch.num_rows
        yield batch
    if rows or len(passed) > 1:  # a sheet beside the one that counts needs no way out
        passed = [reason.replace(FILL, "").replace(SAY, "") for reason in passed]
    if failure or not rows:
        raise BadInput(f"{path}: {failure or _nothing_in(passed)}")
    if notes is not None:
        notes += [f"{path}: {reason}" for reason in passed]
        if cut_off:
            notes.append(f"{path}: recall_results of {cut_off} rows cut off at Excel's limit: read without hits")


def _parse(path: Path, table: Table, rows: Rows) -> tuple[pa.RecordBatch, int]:
    """Return the typed rows, and how many of them have hits that were cut off.

    Raises:
        BadInput: the message is none that `sheet_process` writes: the workbook took its reader over.
    """
    refused = [""] * len(rows.numbers)
    try:
        for index, reason in rows.problems:
            refused[index] = reason
        cells = {name: _unpacked(packed, len(rows.numbers)) for name, packed in rows.columns.items()}
    except (pa.ArrowInvalid, ValueError, IndexError):
        raise BadInput(f"{path}: {_DAMAGED}") from None
    for name in cells.keys() - _NO_TEXTS:
        cells[name] = _numbers_as_texts(name, cells[name], refused)
    batch = table.parse(cells, file=str(path), sheet=rows.sheet, rows=rows.numbers, source="test_set", refused=refused)
    return batch, count_cut_off(cells["recall_results"], batch) if "recall_results" in cells else 0


def _numbers_as_texts(name: str, cells: Cells, refused: list[str]) -> Cells:
    """Write the whole numbers of a column of texts without a point, and refuse the rows of those that are not exact."""
    if isinstance(cells, pa.StringArray):
        return cells
    texts: list[object] = cells.to_pylist() if isinstance(cells, pa.Array) else list(cells)
    for index, cell in enumerate(texts):
        if type(cell) is not float:
            continue
        if abs(cell) > _EXACT:
            refused[index] = refused[index] or f"{name}: rounded by Excel ({cell:.15g}): format the column as text"
        texts[index] = str(int(cell)) if cell.is_integer() and abs(cell) <= _EXACT else str(cell)
    return texts


def _unpacked(packed: PackedCells, count: int) -> Cells:
    if isinstance(packed, Mixed):
        if len(packed.cells) != count:
            raise ValueError("cells are missing")
        return packed.cells
    # Bounds, offsets and UTF-8 are checked: the process may be in a stranger's hands.
    if isinstance(packed, Numbers):
        buffers, kind = [None, pa.py_buffer(packed.data)], pa.float64()
    else:
        buffers, kind = [None, pa.py_buffer(packed.offsets), pa.py_buffer(packed.data)], pa.string()
    cells = pa.Array.from_buffers(kind, count, buffers)
    cells.validate(full=True)
    return cells


def _nothing_in(passed: Sequence[str]) -> str:
    return "; ".join(passed[:_SHEETS_SHOWN])[:_SHOWN] if passed else "no row below the headings"


def _unpacked_sizes(path: Path) -> tuple[int, int]:
    """Return the bytes that the shared texts and the other parts of the workbook unpack to, as its directory has it.

    Raises:
        BadInput: it is no workbook at all, or unpacks to absurd sizes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None
    if not start:
        raise BadInput(f"{path}: the file is empty")
    if start == _OLE:
        return size, 0
    if not start.startswith(b"PK"):
        shown = start.decode("latin-1")
        raise BadInput(f"{path}: not a readable workbook: it begins with {shown!r}; save it as .xlsx in Excel or WPS")
    try:
        with zipfile.ZipFile(path) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
            shared = sum(part.file_size for part in parts.infolist() if part.filename.endswith("sharedStrings.xml"))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BadInput(f"{path}: not a readable workbook: damaged ({error})") from None
    if unpacked > _LARGEST or (unpacked > _RATIO_COUNTS_FROM and unpacked > _LARGEST_RATIO * size):
        raise BadInput(f"{path}: unpacks to {unpacked // _MIB} MiB, {unpacked // size} times its size: not read")
    return shared, unpacked - shared


def _why_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        return _ENDS.get(process.wait(_SECONDS), _DAMAGED)
    except subprocess.TimeoutExpired:  # it has not: it says what it should not
        return _DAMAGED


def _messages(path: Path, request: Request) -> Iterator[Message]:
    """Yield what `sheet_process` says, until it is done. Raises BadInput when it ends before or errs."""
    process = subprocess.Popen(
        child_command("data_prep.readers.sheet_process"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the backtrace of a crash is no line for a user
        env=child_environment(),
    )
    assert process.stdin and process.stdout
    decoder = msgspec.msgpack.Decoder(Message)
    try:
        with process.stdin as asked:
            asked.write(msgspec.msgpack.encode(request))
        message: Message | None = None
        while not isinstance(message, Done):
            length = int.from_bytes(process.stdout.read(LENGTH_BYTES), "little")
            data = process.stdout.read(length) if length <= request.memory else b""
            if not length or len(data) < length:
                raise BadInput(f"{path}: {_why_it_ended(process)}")
            try:
                message = decoder.decode(data)
            except msgspec.MsgspecError:
                raise BadInput(f"{path}: {_DAMAGED}") from None
            del data
            yield message
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
