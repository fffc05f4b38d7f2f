"""The one way a command ends on bad input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from guard.private_files import write_privately
from guard.service_url import without_credentials
from reward.records.files import BadInput

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a command's `main`: bad input and files that cannot be used end it with one line and exit code 2.

    What it and its child processes write is its owner's alone: files 0600, folders 0700.

    @command
    def main(argv: list[str] | None = None) -> int:
        ...
    """

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        mask = write_privately()
        try:
            return main(*args, **kwargs)
        except (BadInput, OSError) as problem:
            from guard.personal.masking import mask_message  # its dictionaries take a while to load

            # A refusal may quote a cell; the paths that the user typed stay as they are.
            print(f"error: {mask_message(without_credentials(str(problem)), keep=sys.argv)}", file=sys.stderr)
            return 2
        finally:
            os.umask(mask)

    return run
