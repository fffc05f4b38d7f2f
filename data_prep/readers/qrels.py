"""Read relevance judgements (qrels): which documents answer which query."""

from __future__ import annotations

import csv
from pathlib import Path

from guard.personal.masking import mask_id
from plain_text.text_file import open_text
from reward.records.files import BadInput


def read_qrels(path: Path) -> dict[str, tuple[str, ...]]:
    """Read query id → ids of its relevant documents (score > 0) from a BEIR `qrels.tsv` (query-id, corpus-id, score),
    in any encoding that `plain_text.text_file` reads. Ids are masked as those of rows and hits are (`mask_id`).

    Raises:
        BadInput: no such file, it is no text, or a line is not three tab-separated fields with a numeric score.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    lines = open_text(path, BadInput).lines()
    relevant: dict[str, list[str]] = {}
    for row, fields in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if not any(map(str.strip, fields)) or (row == 1 and fields[0].strip() == "query-id"):
            continue
        try:
            query_id, doc_id, score = map(str.strip, fields)
            if float(score) > 0:
                relevant.setdefault(mask_id(query_id), []).append(mask_id(doc_id))
        except ValueError:
            raise BadInput(f"{path}: row {row}: expected query-id, corpus-id, score") from None
    return {query_id: tuple(doc_ids) for query_id, doc_ids in relevant.items()}
