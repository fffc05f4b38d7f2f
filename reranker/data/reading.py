"""Read training data: the path tells its kind, each row is checked, and a wrong one is kept aside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.readers.qrels import read_qrels
from data_prep.readers.sources import Sources
from plain_text.asked import asked_text, context_text
from reranker.data.records import LeftOut, Passage, Record, text_id
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

PAIRS = "reranker_pairs.jsonl"  # of rag.learn_from_clicks and data_prep.build_feedback
LONGEST_TEXT = 50_000  # characters; of longer passages the beginning is used: no model reads more
_CONTEXT = ("user_profile", "history_summary", "history_context")
_TABLES = {".xlsx", ".xlsm", ".xls", ".csv", ".tsv"}


@dataclass
class Reading:
    """What was found. `shortened`: passages longer than `LONGEST_TEXT`; `pool`: passages beyond the records'."""

    records: list[Record] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    pool: list[Passage] = field(default_factory=list)
    rows: int = 0
    shortened: int = 0


def read_data(paths: Sequence[Path], qrels: Path | None = None, corpus: Path | None = None) -> Reading:
    """Read every row of the files and folders.

    Raises:
        BadInput: a path is missing or of no known kind, or no row can be used (names the first one's reason).
    """
    found = Reading()
    for path in paths:
        if path.is_dir() and (path / PAIRS).is_file():
            _read_lists(path / PAIRS, found)
        elif path.is_dir() and (path / "qrels.tsv").is_file():
            _read_beir(path, found)
        elif path.is_file() and path.suffix == ".jsonl":
            _read_lists(path, found)
        elif path.is_file() and path.suffix.lower() in _TABLES:
            _read_bvt(path, qrels, corpus, found)
        elif path.exists():
            raise BadInput(f"{path}: expected .jsonl, .xlsx or .csv, a folder with {PAIRS}, or with qrels.tsv")
        else:
            raise BadInput(f"{path}: no such file or folder")
    if not found.records:
        first = f"; {found.left_out[0]}" if found.left_out else ""
        raise BadInput(f"{', '.join(map(str, paths))}: none of {found.rows} rows can be used{first}")
    return found


def _read_lists(path: Path, found: Reading) -> None:
    """Read the spec's JSONL: query_text, positives, negatives (doc_id, text, perhaps a teacher's score)."""
    for row, line in _lines(path):
        where = f"{path}: row {row}"
        found.rows += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            found.left_out.append(LeftOut(where, "line", f"not JSON ({str(error)[:80]})"))
            continue
        if not isinstance(value, dict):
            found.left_out.append(LeftOut(where, "line", f"expected an object, found {type(value).__name__}"))
            continue
        query = value.get("query_text")
        if not isinstance(query, str) or not query.strip():
            found.left_out.append(LeftOut(where, "query_text", "missing or empty"))
            continue
        positives = _passages(value.get("positives"), where, "positives", found)
        negatives = _passages(value.get("negatives", []), where, "negatives", found)
        if positives is None or negatives is None:
            continue
        if not positives:
            found.pool += negatives
            found.left_out.append(LeftOut(where, "positives", "no passage answers the query: nothing to rank first"))
            continue
        found.records.append(Record(query.strip(), tuple(positives), tuple(negatives), where))


def _passages(values: Any, where: str, name: str, found: Reading) -> list[Passage] | None:
    """Return the usable passages of a list; None when it is no list. Each wrong one is kept aside."""
    if not isinstance(values, list):
        found.left_out.append(LeftOut(where, name, "missing or no list"))
        return None
    passages = []
    for place, value in enumerate(values):
        one = {"text": value} if isinstance(value, str) else value
        problem = _problem(one)
        if problem:
            found.left_out.append(LeftOut(where, f"{name}.{place}", problem))
            continue
        text, doc_id = _shortened(one["text"].strip(), found), one.get("doc_id")
        score = one.get("score")
        name_of = str(doc_id) if doc_id not in (None, "") else text_id(text)
        passages.append(Passage(name_of, text, None if score is None else float(score)))
    return passages


def _problem(value: Any) -> str:
    if not isinstance(value, dict):
        return f"expected doc_id and text, found {type(value).__name__}"
    if not isinstance(value.get("text"), str) or not value["text"].strip():
        return "text is missing or empty"
    if isinstance(value.get("doc_id"), bool) or not isinstance(value.get("doc_id"), str | int | None):
        return "doc_id is neither text nor a number"
    score = value.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        return "score is no finite number"
    return ""


def _shortened(text: str, found: Reading) -> str:
    found.shortened += len(text) > LONGEST_TEXT
    return text[:LONGEST_TEXT]


def _read_beir(folder: Path, found: Reading) -> None:
    """Read queries.jsonl, corpus.jsonl and qrels.tsv. A description is the query's context. There are no negatives:
    mining and random ones stand in."""
    passages = _read_corpus(folder / "corpus.jsonl", found)
    relevant = read_qrels(folder / "qrels.tsv")
    found.pool += passages.values()
    for row, line in _lines(folder / "queries.jsonl"):
        where = f"{folder / 'queries.jsonl'}: row {row}"
        found.rows += 1
        try:
            value = json.loads(line)
            name, text = str(value["_id"]), value["text"].strip()
            described = next((one for one in value.get("descriptions") or [] if one.strip()), "")
        except (ValueError, KeyError, TypeError, AttributeError):
            found.left_out.append(LeftOut(where, "line", "expected an object with _id and text"))
            continue
        if not text:
            found.left_out.append(LeftOut(where, "text", "empty"))
            continue
        known = [passages[doc_id] for doc_id in relevant.get(name, ()) if doc_id in passages]
        if not known:
            reason = "not in corpus.jsonl" if name in relevant else "no relevant passage"
            found.left_out.append(LeftOut(where, "qrels.tsv", reason))
            continue
        context = context_text("", "", " ".join(described.split()))  # as the service gets it of examples.prepare_beir
        found.records.append(Record(asked_text(text, context), tuple(known), (), where))


def _read_corpus(path: Path, found: Reading) -> dict[str, Passage]:
    """Read doc_id → passage; the title becomes the first line, as the service indexes it."""
    passages: dict[str, Passage] = {}
    for row, line in _lines(path):
        try:
            value = json.loads(line)
            text = f"{value.get('title') or ''}\n{value['text']}".strip()
            name = str(value["_id"])
        except (ValueError, KeyError, TypeError, AttributeError):
            found.left_out.append(LeftOut(f"{path}: row {row}", "line", "expected an object with _id and text"))
            continue
        if text:
            passages[name] = Passage(name, _shortened(text, found))
    return passages


def _read_bvt(path: Path, qrels: Path | None, corpus: Path | None, found: Reading) -> None:
    """Read a BVT export: of a query's hits those named by the qrels answer it, the others are hard negatives."""
    if qrels is None:
        raise BadInput(f"{path}: a BVT export does not say which hits answer: name data.qrels")
    relevant = read_qrels(qrels)
    passages = _read_corpus(corpus, found) if corpus else {}
    for batch in Sources([path], SourceSettings(), ("original_query", "query_id", "recall_results")).batches():
        for row in batch.to_pylist():
            where = f"{row['file']}: row {row['row']}"
            found.rows += 1
            if row["refused"]:
                found.left_out.append(LeftOut(where, "row", row["refused"]))
                continue
            answers = relevant.get(row["query_id"] or "", ())
            if not answers:
                found.left_out.append(LeftOut(where, "query_id", f"{row['query_id']!r} is not in {qrels}"))
                continue
            hits = json.loads(row["recall_results"] or b"[]")
            of_hits = {
                str(hit["doc_id"]): Passage(str(hit["doc_id"]), _shortened(hit["content"].strip(), found))
                for hit in hits
                if hit.get("doc_id") and hit["content"].strip()
            }
            known = [of_hits.get(name) or passages.get(name) for name in answers]
            positives = tuple(one for one in known if one)
            if not positives:
                found.left_out.append(LeftOut(where, "recall_results", "no answer among the hits, none in data.corpus"))
                continue
            negatives = tuple(one for name, one in of_hits.items() if name not in answers)
            context = context_text(*(row[name] or "" for name in _CONTEXT))
            query = asked_text(row["original_query"], context)
            found.records.append(Record(query, positives, negatives, where))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield row number and text of each line that is not blank; a byte that is no UTF-8 spoils its own line only."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                yield row, line if _is_text(line) else "\0not UTF-8"


def _is_text(line: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in line)
