"""The answers of a running BVT batch test, kept as they come (`<out>.progress.jsonl`), so that none is asked for twice.

Only answers are kept, never failures: those are asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.bvt.row import BvtRow
from data_prep.text.cleaning import clean_hits
from guard.personal.masking import mask_message
from guard.private_files import keep_private, make_folder
from reward.records.call import content_key
from reward.records.sample import Hit
from reward.services.rag_client import RagAnswer
from reward.settings.data import DeidentifySettings
from reward.settings.recipe import TenantSettings


class RecordedAnswer(BaseModel):
    """One line of the file: what the service answered to the question `key`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    hits: tuple[Hit, ...]
    rewritten_query: str
    user_profile: str
    history_summary: str


def question_key(row: BvtRow, tenant: TenantSettings) -> str:
    """Hash a question to a service: rows with the same key need one call."""
    rag = tenant.rag
    service = [rag.url, rag.kb_name, rag.kb_version, tenant.tenant_id]
    return content_key("bvt", service, row.original_query, row.context.model_dump())


def read_progress(path: Path) -> dict[str, RecordedAnswer]:
    """Read the recorded answers by key. A line cut off by a kill is passed over: its question is asked again."""
    answers = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                answer = RecordedAnswer.model_validate_json(line)
            except ValidationError:
                continue
            answers[answer.key] = answer
    return answers


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Open `path` at its end, and at the start of a line even if a kill cut the last one off."""
    make_folder(path.parent)
    with open(path, "a", encoding="utf-8", opener=keep_private) as record:
        if record.tell():
            record.write("\n")
        yield record


def record_answer(record: TextIO, key: str, answer: RagAnswer, settings: DeidentifySettings) -> RecordedAnswer:
    """Append `answer`, de-identified; it survives a kill once this returns."""

    def clean(text: str) -> str:
        return mask_message(text, settings.keep, settings.kinds)

    recorded = RecordedAnswer(
        key=key,
        hits=clean_hits([hit.model_dump() for hit in answer.hits], settings),
        rewritten_query=clean(answer.rewritten_query),
        user_profile=clean(answer.user_profile),
        history_summary=clean(answer.history_summary),
    )
    record.write(recorded.model_dump_json() + "\n")
    record.flush()
    return recorded
