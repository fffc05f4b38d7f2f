"""Tokenise long texts in a process of its own: `python -m rag.documents.token_process`.

jieba is written in Python: a thread that cuts a long text keeps the interpreter's lock from the searches of others. The
process gives way to everything else, and ends with the one that started it.

In: a text in UTF-8, after its length in 4 bytes. Out: the ids of its tokens, 4 bytes each, after their length; and
before the first of them a frame without content: the dictionary is loaded.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
from typing import IO

import numpy as np
from numpy.typing import NDArray

from guard.sealed_process import child_command, child_environment, seal
from rag.documents.tokenizer import load_dictionary, token_ids

_NICE = 10
_MEMORY = 1 << 30  # bytes
_SECONDS = 24 * 3600  # of processor time; then another process takes its place
_LOG = logging.getLogger(__name__)


class TokenProcess:
    """The process, started when it is first asked; it needs a second to load. Thread-safe; one text at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lock = threading.Lock()

    def token_ids(self, text: str) -> NDArray[np.uint32] | None:
        """Return the ids of the text's tokens, in their order and with repetitions; None while the process is not
        ready: just started, or anew because it had ended."""
        with self._lock:
            try:
                return self._ask(text)
            except OSError as error:
                _LOG.warning("the process that tokenises long texts ended: %s", error)
                self._end()
                return None

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, text: str) -> NDArray[np.uint32] | None:
        if self._process is None:
            self._process = subprocess.Popen(
                child_command("rag.documents.token_process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._ready:
            if not select.select([self._process.stdout], [], [], 0)[0]:
                return None
            _receive(self._process.stdout)
            self._ready = True
        _send(self._process.stdin, text.encode("utf-8", "surrogatepass"))
        return np.frombuffer(_receive(self._process.stdout), np.uint32)

    def _end(self) -> None:
        process, self._process, self._ready = self._process, None, False
        if process is not None:
            process.kill()
            process.communicate()


def _send(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(len(frame).to_bytes(4) + frame)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """
    Raises:
        OSError: the other side has ended.
    """
    if len(length := pipe.read(4)) < 4:
        raise OSError("no answer")
    wanted = int.from_bytes(length)
    if len(frame := pipe.read(wanted)) < wanted:
        raise OSError("half an answer")
    return frame


def main() -> None:
    seal(_MEMORY, _SECONDS)
    load_dictionary()
    os.nice(_NICE)
    _send(sys.stdout.buffer, b"")
    while True:
        try:
            text = _receive(sys.stdin.buffer).decode("utf-8", "surrogatepass")
        except OSError:
            return
        _send(sys.stdout.buffer, np.array(token_ids(text), np.uint32).tobytes())


if __name__ == "__main__":
    main()
