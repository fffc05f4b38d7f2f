"""One hostile cell costs its row: what takes more than linear time is bounded before."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_prep import build_sft
from data_prep.rows.columns import COLUMNS
from data_prep.text.cleaning import LONGEST_TEXT
from guard.personal.normal_form import normalise_lines
from plain_text.marks import MOST_MARKS, bound_marks
from reward.text.fold import fold

MARKS = "".join(chr(code) for code in range(0x300, 0x370) if unicodedata.combining(chr(code)))


def longest_run(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        longest = max(longest, run)
    return longest


@given(st.text(st.sampled_from(f"{MARKS}a鱼\u200d 。\u0344"), max_size=300))
def test_no_run_of_marks_is_longer_than_unicode_allows(text: str) -> None:
    bounded = bound_marks(text)
    assert longest_run(bounded) <= MOST_MARKS
    if longest_run(text) <= MOST_MARKS:
        assert bounded == text
    assert bound_marks(bounded) == bounded
    for normal in (normalise_lines, fold):
        assert longest_run(normal(text)) <= 2 * MOST_MARKS  # one mark may decompose into two


@given(st.text())
def test_other_texts_stay_as_they_are(text: str) -> None:
    if longest_run(text) <= MOST_MARKS:
        assert bound_marks(text) == text


HOSTILE = {
    "marks": "a" + MARKS * 3000,
    "marks behind joiners": "a" + "\u0301\u200d\u0327\u200d" * 50_000,
    "one surname": "王" * 200_000,
    "digits": "1" * 200_000,
    "brackets": "[" * 200_000,
    "braces": '{"a":' * 50_000,
    "quotes": '"' * 200_000,
    "numerals": "万" * 200_000,
    "addresses": "北京市1号" * 40_000,
    "e-mails": "a@b." * 50_000,
    "thinking": "<think>" * 30_000,
    "turns": "用户:\n" * 50_000,
    "dates": "2024-" * 40_000,
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_hostile_cell_in_any_column_costs_its_row(tmp_path: Path, shape: str) -> None:
    tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "你是查询优化专家。"}
    (tmp_path / "tenant.yaml").write_text(yaml.safe_dump(tenant, allow_unicode=True), encoding="utf-8")
    sane = {"rewritten_query": "鱼油 用法 用量", "success": True, "top1_score": 0.9}
    words = ("鱼油怎么吃", "钙片几点吃", "叶酸吃多久", "益生菌怎么存", "维生素能同服吗", "蛋白粉怎么冲")
    rows = [{**sane, "original_query": f"{word}{n}"} for word in words for n in range(5)]
    hostile = [{**sane, "original_query": f"{words[0]}第{n}", name: HOSTILE[shape]} for n, name in enumerate(COLUMNS)]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*hostile, *rows]]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    given = ["--input", str(tmp_path / "rows.jsonl"), "--tenant", str(tmp_path / "tenant.yaml")]
    assert build_sft.main([*given, "--out", str(tmp_path / "out")]) == 0
    stats = json.loads((tmp_path / "out" / "stats.json").read_text(encoding="utf-8"))
    assert stats["rows_in"] == len(lines) and stats["rows_kept"] >= len(rows)
    reasons = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8")
    told = "JSON that cannot be read" if shape == "braces" else f"longer than {LONGEST_TEXT:,} characters"
    assert f"original_query: {told}" in reasons or shape.startswith("marks")
