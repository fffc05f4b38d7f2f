"""The one way a command of this package ends on bad input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from pydantic import ValidationError

from guard.private_files import write_privately
from rag.documents.records import IngestError
from rag.index.engine import EngineUnavailable
from rag.models.failure import ModelFailure

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a command's `main`: what cannot be read, embedded or stored ends it with one line and exit code 2.

    What it and its child processes write is its owner's alone: files 0600, folders 0700.
    """

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        mask = write_privately()
        try:
            return main(*args, **kwargs)
        except (IngestError, ModelFailure, EngineUnavailable, OSError) as problem:
            from guard.personal.masking import mask_message  # its dictionaries take a while to load

            # A refusal may quote a document; the paths that the user typed stay as they are.
            print(f"error: {mask_message(str(problem), keep=sys.argv)}", file=sys.stderr)
            return 2
        except ValidationError as problem:  # of an option: what it holds may be a secret
            first = problem.errors()[0]
            print(f"error: {'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
            return 2
        finally:
            os.umask(mask)

    return run
