"""The archive of the teacher: every request with every attempt and what came back, a line an attempt.

`<folder>/<day>.jsonl` (UTC), appended to by any number of processes of one machine. Personal data is masked.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.personal.masking import mask_message
from guard.private_files import make_folder
from reward.records.call import ServiceFailure
from reward.services.attempts import Attempt

ARCHIVE_FOLDER = "logs/deepseek_teacher"  # beside the ledger
MOST_BODY = 100_000  # characters of an answer's body


class TeacherArchive:
    """Appends to `folder`.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self._folder = folder

    def append(self, identity: dict[str, Any], number: int, attempt: Attempt, body: bytes) -> None:
        """Write one attempt.

        Args:
            identity: who was asked what: key, model, version, template, `messages`.
            number: of the attempt, from 1.
            body: of the service's answer, empty where none came.

        Raises:
            OSError: the line could not be written.
        """
        now = datetime.now(UTC)
        failure = attempt.value if isinstance(attempt.value, ServiceFailure) else None
        line = {
            "time": now.isoformat(timespec="milliseconds"),
            **identity,
            "messages": [{**message, "content": mask_message(message["content"])} for message in identity["messages"]],
            "attempt": number,
            "status": failure.kind.value if failure else "ok",
            "detail": failure.reason if failure else "",
            "asked_again": attempt.again,
            "seconds": round(attempt.seconds, 3),
            "input_tokens": attempt.input_tokens,
            "output_tokens": attempt.output_tokens,
            "estimated": attempt.estimated,
            "answer": mask_message(body.decode("utf-8", "replace")[:MOST_BODY]),
        }
        text = json.dumps(line, ensure_ascii=False) + "\n"
        # One write a line: processes that append at once do not tear each other's lines.
        file = os.open(self._folder / f"{now:%Y-%m-%d}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, text.encode("utf-8", "backslashreplace"))
        finally:
            os.close(file)
