"""The trainer's processes: started together, ended together, and one launcher at a time in an output folder."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

from reward.records.files import BadInput

INTERRUPTED = 130
GRACE_SECONDS = 30.0  # torchrun takes its time to end its workers
LOCK_FILE = ".lock"
# Of Linux's prctl.
_DEATH_SIGNAL, _ADOPT_ORPHANS = 1, 36
_libc = ctypes.CDLL(None)


def hold(output: Path) -> TextIO:
    """Make an output folder and claim it; the claim ends with this process and with those that inherit the file.

    Raises:
        BadInput: another launcher or its trainer is at work there, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / LOCK_FILE).open("a")
    except OSError as error:
        raise BadInput(f"recipe.output_dir: cannot write in {output}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise BadInput(f"recipe.output_dir: a run is at work in {output}; wait for it or end it") from None
    except OSError:
        pass  # a file system without locks
    return lock


def adopt_orphans() -> None:
    """Let processes whose parent is killed become children of this one, so that `end_descendants` finds them."""
    _libc.prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def end_descendants() -> None:
    """Kill every process that this one has started, directly or not, and that is still there.

    A killed trainer leaves workers behind: they hold the GPUs, or go on writing into the run's folder.
    """
    while left := [child for child in psutil.Process().children(recursive=True) if _runs(child)]:
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, timeout=GRACE_SECONDS)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_group(
    command: list[str], environment: dict[str, str], stop: threading.Event, inherits: tuple[int, ...] = ()
) -> int:
    """Run a command in a process group of its own; once `stop` is set, end all of the group. It ends with this process.

    Args:
        inherits: file descriptors that the command keeps open.

    Returns:
        The command's exit code (128 + n after signal n), or 130 when stopped.
    """
    process = subprocess.Popen(
        command, env=environment, process_group=0, pass_fds=inherits, preexec_fn=_end_with_parent
    )
    while process.poll() is None and not stop.wait(0.2):
        pass
    if not stop.is_set():
        return process.returncode if process.returncode >= 0 else 128 - process.returncode
    # torchrun's workers live in sessions of their own: only torchrun itself can end them.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return INTERRUPTED


def _end_with_parent() -> None:
    # SIGTERM, which torchrun passes on to its workers.
    _libc.prctl(_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
