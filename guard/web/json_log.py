"""A service's log: one JSON line an event, to stderr."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def log_json(logger: logging.Logger, level: int) -> None:
    """Make a logger write JSON lines of `level`, `event`, what was given as `extra`, and `at`, and nothing else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{message}",
            style="{",
            timestamp="at",
            rename_fields={"levelname": "level", "message": "event"},
            json_ensure_ascii=False,
        )
    )
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
