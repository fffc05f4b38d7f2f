"""The exports that the data benchmark reads: a BVT workbook and a production log, seeded.

What a shop's customers type: product, question, sometimes who asks and some small talk. One row in eight repeats an
earlier question word for word, one in eight differs from one by a particle; one in a hundred is broken, in the ways
that exports are; one in fifty carries personal data, in its query, its profile or its dialogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import xlsxwriter
import yaml

from data_prep.bvt.row import EXPORT_COLUMNS

XLSX_HITS, LOG_HITS = 5, 3
_BLOCK = 10_000
_PASSAGES = 4_000
_LAST_DAY, _DAYS = datetime(2026, 3, 31, 23, 59, 59), 28

Progress = Callable[[int], None]

_PHRASES: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text("utf-8"))
_PRODUCTS, _QUESTIONS, _TERMS, _FACTS = (_PHRASES[name] for name in ("products", "questions", "terms", "facts"))
_PROFILES = [
    f"{age}岁{sex}，{work}" for age in range(22, 78, 4) for sex in "男女" for work in ("退休", "上班", "自由职业")
]


@dataclass(frozen=True)
class Question:
    """A row; `recall` is its JSON list of hits. `broken`: -1, or a number that says in which way."""

    query: str
    profile: str
    summary: str
    rewrite: str
    recall: str
    scores: list[float]
    broken: int


def questions(rows: int, hits: int, seed: int) -> Iterator[Question]:
    """Yield `rows` questions with `hits` hits each, best first."""
    random = np.random.default_rng([seed, hits])
    passages = [json.dumps(_passage(n), ensure_ascii=False) for n in range(_PASSAGES)]
    personal_kinds = _PHRASES["personal"]
    earlier: list[tuple[str, str]] = []
    for start in range(0, rows, _BLOCK):
        draws = random.random((min(_BLOCK, rows - start), 12)).tolist()
        chosen = random.integers(0, _PASSAGES, (len(draws), hits)).tolist()
        scores = np.sort(np.round(random.beta(6, 3, (len(draws), hits)), 4))[:, ::-1].tolist()
        for number, (draw, places, found) in enumerate(zip(draws, chosen, scores, strict=True), start=start):
            # A quarter of the rows ask again, half of those with a particle more.
            query, rewrite = _ask(draw)
            if draw[5] < 0.25 and earlier:
                query, rewrite = earlier[int(draw[6] * len(earlier))]
                query += _pick(_PHRASES["particles"], draw[7]) if draw[5] < 0.125 else ""
            elif len(earlier) < _BLOCK:
                earlier.append((query, rewrite))
            product = _pick(_PRODUCTS, draw[0])
            profile = _pick(_PROFILES, draw[8]) if draw[8] < 0.6 else ""
            summary = _pick(_PHRASES["summaries"], draw[9]).format(product)
            if draw[10] < 0.02:
                personal = personal_kinds[number % len(personal_kinds)].format(number % 10_000)
                query, profile, summary = [
                    (f"{query}，{personal}", profile, summary),
                    (query, f"{profile} {personal}".strip(), summary),
                    (query, profile, f"{summary} {personal}".strip()),
                ][number % 3]
            recall = ", ".join(_hit(passages[place], place, score) for place, score in zip(places, found, strict=True))
            broken = int(draw[11] * 100_000) if draw[11] < 0.01 else -1
            yield Question(query, profile, summary, rewrite, f"[{recall}]", found, broken)


def write_workbook(path: Path, rows: int, seed: int, progress: Progress) -> None:
    """Write the first nine columns of a BVT workbook; cells share equal texts, as Excel stores them."""
    book = xlsxwriter.Workbook(str(path), {"strings_to_formulas": False, "strings_to_urls": False})
    sheet = book.add_worksheet("bvt")
    sheet.write_row(0, 0, EXPORT_COLUMNS)
    for row, asked in enumerate(questions(rows, XLSX_HITS, seed), start=1):
        top3 = round(sum(asked.scores[:3]) / 3, 4)
        texts = [asked.query, asked.profile, asked.summary, asked.rewrite, asked.recall]
        cells = [*texts, XLSX_HITS, asked.scores[0], top3, row % 50 != 0]
        if asked.broken >= 0:
            place, cell = ((0, "  "), (4, asked.recall[:-7]), (6, "高"), (8, "也许"), (5, -1))[asked.broken % 5]
            cells[place] = cell
        sheet.write_row(row, 0, cells)
        if row % _BLOCK == 0:
            progress(row)
    book.close()
    progress(rows)


def write_log(path: Path, lines: int, seed: int, progress: Progress) -> None:
    """Write JSON lines as the service writes them: `payload` and `response`, one request a line."""
    quote = json.encoder.encode_basestring
    step = timedelta(days=_DAYS) / max(1, lines)
    with path.open("w", encoding="utf-8") as out:
        for number, asked in enumerate(questions(lines, LOG_HITS, seed), start=1):
            at = (_LAST_DAY - step * (lines - number)).isoformat(timespec="seconds")
            query = quote(asked.query) if asked.broken < 0 or asked.broken % 3 != 1 else '"  "'
            recall = asked.recall if asked.broken < 0 or asked.broken % 3 != 2 else '"无"'
            line = (
                f'{{"timestamp": "{at}", "request_id": "r{number:08d}", "payload": {{"query": {query}, '
                f'"tenant_id": "fivedoctors", "kb_name": "default", "top_k": 5}}, "response": {{"rewritten_query": '
                f'{quote(asked.rewrite)}, "user_profile": {quote(asked.profile)}, "history_summary": '
                f'{quote(asked.summary)}, "recall": {recall}}}, "model": "qwen-32b", "latency_ms": {number % 900}}}'
            )
            out.write((line if asked.broken < 0 or asked.broken % 3 else line[: len(line) // 2]) + "\n")
            if number % _BLOCK == 0:
                progress(number)
    progress(lines)


def _ask(draw: list[float]) -> tuple[str, str]:
    product, place = _pick(_PRODUCTS, draw[0]), int(draw[1] * len(_QUESTIONS))
    parts = [_pick(_PHRASES["small_talk"], draw[2]), _pick(_PHRASES["askers"], draw[3]) + (product + _QUESTIONS[place])]
    if draw[4] < 0.7:
        parts.append(f"我买的是{int(draw[4] * 9000)}号那批")
    return "，".join(part for part in parts if part), f"{product} {_TERMS[place]}"


def _hit(content: str, place: int, score: float) -> str:
    return f'{{"content": {content}, "score": {score / 2:.4f}, "reranker_score": {score}, "doc_id": "d{place}"}}'


def _passage(number: int) -> str:
    product = _PRODUCTS[number % len(_PRODUCTS)]
    facts = "；".join(_FACTS[(number // 7 + n * (number % 5 + 1)) % len(_FACTS)] for n in range(3))
    return f"{product}（货号{number:04d}）：{facts}。"


def _pick(choices: Sequence[str], draw: float) -> str:
    return choices[int(draw * len(choices))]
