"""The prompt files of judge and teacher: one for each mode and version."""

from __future__ import annotations

from pathlib import Path

from reward.records.files import BadInput


def read_prompt_file(folder: Path, name: str, setting: str) -> str:
    """Read `folder`/`name`.txt.

    Args:
        setting: what chose the name, for the error.

    Raises:
        BadInput: there is none; it says which there are.
    """
    path = folder / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt")))
        raise BadInput(f"{setting}: no file {path.name} (there are: {known})")
    return path.read_text(encoding="utf-8")
