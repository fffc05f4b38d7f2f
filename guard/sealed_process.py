"""A child process that reads a file of somebody else's: no secret in its environment, no network, bounded resources.

A network namespace of its own takes the network away. Where the system allows none (some containers do not), the
process keeps the network and its caller says so once. `python -m guard.sealed_process` tells what this system allows.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # <linux/sched.h>
_LARGEST_FILE = 1 << 30  # bytes that it may write
_ROOT = str(Path(__file__).resolve().parents[1])
# What Python itself may need to start. Keys, tokens, proxies and settings of other programs stay out.
_PASSED_ON = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
_log = logging.getLogger(__name__)


def child_command(module: str) -> list[str]:
    """Return the command that runs a module of ours, found by `child_environment` alone."""
    return [sys.executable, "-P", "-m", module]


def child_environment() -> dict[str, str]:
    """Return the whole environment of a child: where its modules are, and nothing of ours."""
    search = os.pathsep.join((_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])))
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": search, "PYTHONUTF8": "1"}


def seal(memory: int, seconds: int) -> bool:
    """Bound this process and take its network away; return whether that could be done. Call it first of all.

    Args:
        memory: bytes of address space.
        seconds: of processor time.
    """
    without_network = _leave_network()
    for limit, value, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, seconds, seconds + 5),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with suppress(ValueError, OSError):  # a stricter limit is set already, or the system knows none
            resource.setrlimit(limit, (value, hard))
    return without_network


def _leave_network() -> bool:
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    # Alone it takes a privilege; together with a user namespace many systems let everybody have it.
    return unshare is not None and any(unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


@cache
def warn_of_network() -> None:
    """Say once that readers of files keep the network."""
    _log.warning("the processes that read files keep the network: this system allows them no namespace of their own")


if __name__ == "__main__":
    code = "from guard.sealed_process import seal; print(seal(1 << 40, 60))"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    )
    allowed = ended.stdout.strip() == "True"
    print(f"processes that read files have {'no network' if allowed else 'the network: no namespace is allowed'}")
