"""Files and folders that are their owner's alone."""

from __future__ import annotations

import os
from pathlib import Path


def keep_private(path: str, flags: int) -> int:
    """Open for `open(…, opener=keep_private)`: a file that is made is its owner's alone (0600)."""
    return os.open(path, flags, 0o600)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, their owner's alone (0700)."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)


def write_privately() -> int:
    """Make what this process and its children write from now on their owner's alone; return the umask before."""
    return os.umask(0o077)
