"""Promotions in processes of their own, run at once or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

from export.promote import main


def start_promotion(arguments: Sequence[str]) -> BaseProcess:
    """Start `export.promote` in a forked process, silent; its exit code is the command's."""
    process = multiprocessing.get_context("fork").Process(target=_promote, args=(list(arguments),))
    process.start()
    return process


def kill_after(process: BaseProcess, seconds: float) -> bool:
    """Kill the process after `seconds`. Returns whether it was still running."""
    time.sleep(seconds)
    running = process.exitcode is None
    if running and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return running


def _promote(arguments: list[str]) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os._exit(main(arguments))
