"""Small training sets and runs of the reranker's trainer: answers hold 是, other passages 否."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rag.models.reranker import open_reranker
from tests.support.tiny_models import save_bert, save_qwen3

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"
ALPHABET = CHARACTERS + "是否吗？0123456789abc"


def lists(n: int, seed: int = 0, negatives: int = 3) -> list[dict[str, Any]]:
    """`n` rows of the spec's JSONL, no two alike."""
    rng = random.Random(seed)

    def text(mark: str, number: str) -> str:
        return "".join(rng.choices(CHARACTERS, k=6)) + mark + number

    return [
        {
            "query_text": "".join(rng.choices(CHARACTERS, k=4)) + f"吗{row}",
            "positives": [{"doc_id": f"p{row}", "text": text("是", str(row))}],
            "negatives": [{"doc_id": f"n{row}-{i}", "text": text("否", f"{row}{i}")} for i in range(negatives)],
            "source_chunk": "",
            "meta": {"domain": "test", "prompt_style": "short"},
        }
        for row in range(n)
    ]


def write_lists(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_run(folder: Path, *, rows: list[Any] | None = None, base: str = "bert", **changes: Any) -> Path:
    """Write data, a tiny random base and a run's YAML; return the YAML. `base`: bert (with a head), bare or qwen3;
    `changes`: settings, sections merged."""
    train = write_lists(folder / "train.jsonl", lists(40) if rows is None else rows)
    model = folder / "base"
    if base == "qwen3":
        save_qwen3(model, ALPHABET, generative=False)
    else:
        save_bert(model, ALPHABET, labels=None if base == "bare" else 1)
    settings: dict[str, Any] = {
        "output": str(folder / "out"),
        "base": str(model),
        "max_length": 32,
        "data": {"train": [str(train)], "candidates": 8},
        "groups": {"hard": 2, "random": 1},
        "training": {
            "epochs": 3, "batch_size": 4, "learning_rate": 0.005, "eval_steps": 8, "report_to": [], "patience": 20,
        },
    }  # fmt: skip
    for name, value in changes.items():
        settings[name] = settings.get(name, {}) | value if isinstance(value, dict) else value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def served_scores(folder: Path, query: str, passages: Sequence[str]) -> np.ndarray:
    """Return what the service gives these passages with the model in `folder`."""

    async def once() -> np.ndarray:
        reranker = open_reranker(str(folder))
        try:
            return await reranker.score(query, "", passages)
        finally:
            await reranker.aclose()

    return asyncio.run(once())
