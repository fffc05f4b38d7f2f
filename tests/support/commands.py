"""Commands run at the repository's root, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.support import ROOT


def run_command(*command: str, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its exit status, stdout and stderr. `options` are those of `subprocess.run`.

    Raises:
        subprocess.TimeoutExpired: after `timeout` seconds.
    """
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, **options)


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments`, such as `"-m", "reward.replay"`."""
    return run_command(sys.executable, *arguments, **options)


def start_module(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m` with `arguments`; the caller ends it. `options` are those of `subprocess.Popen`."""
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, text=True, **options)
