"""Production logs as the service writes them, without a score, become training data."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_prep import build_rl, build_sft, fill_baseline
from reward.records.sample import read_samples
from tests.data_prep.test_fill import Services

TOPICS = ("鱼油", "钙片", "益生菌", "叶黄素", "褪黑素", "蛋白粉", "螺旋藻", "阿胶糕", "氨糖", "葡萄籽", "纳豆", "灵芝")


def a_log(path: Path, day: str = "2026-11-01") -> Path:
    lines = (
        {
            "timestamp": f"{day}T10:00:00",
            "payload": {"query": f"{topic}到底怎么吃才好"},
            "response": {
                "rewritten_query": f"{topic} 服用方法 剂量",
                "user_profile": "45岁女性",
                "history_summary": f"咨询{topic}",
                "history_context": f"用户: 有{topic}吗\n助手: 有的",
            },
        }
        for topic in TOPICS
    )
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def sft(source: Path, out: Path, *options: str) -> int:
    return build_sft.main(["--input", str(source), "--tenant", "fivedoctors", "--out", str(out), *options])


def test_a_log_without_scores_names_both_ways_out_and_leaves_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = a_log(tmp_path / "service.jsonl")
    assert sft(log, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"python -m data_prep.fill_baseline --input {log} --tenant fivedoctors --out filled.jsonl" in error
    assert "--keep-unscored" in error and str(tmp_path / "out" / "quarantine.jsonl") in error
    assert error.count("\n") == 1
    reasons = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open(encoding="utf-8")]
    assert [line["reason"] for line in reasons] == ["top1_score is not recorded"] * len(TOPICS)


def test_on_request_unscored_rows_are_kept_with_their_context(tmp_path: Path) -> None:
    log = a_log(tmp_path / "service.jsonl")
    assert sft(log, tmp_path / "out", "--keep-unscored", "--split", "train", "--no-augment") == 0
    samples = read_samples(tmp_path / "out" / "train_latest.jsonl")
    assert len(samples) == len(TOPICS)
    assert samples[0].context.history_context == "用户: 有鱼油吗\n助手: 有的"
    assert samples[0].context.user_profile == "45岁女性" and samples[0].metadata.source == "production_log"


def test_a_log_scored_by_retrieval_becomes_sft_data(tmp_path: Path) -> None:
    log, filled = a_log(tmp_path / "service.jsonl"), tmp_path / "filled.jsonl"
    services = Services()
    try:
        options = ["--input", str(log), "--tenant", "fivedoctors", "--out", str(filled)]
        urls = ["--rag-url", services.url, "--ledger", str(tmp_path / "ledger.sqlite")]
        assert fill_baseline.main(options + urls) == 0
    finally:
        services.close()
    assert sft(filled, tmp_path / "out", "--split", "train", "--no-augment") == 0
    samples = read_samples(tmp_path / "out" / "train_latest.jsonl")
    assert len(samples) == len(TOPICS) and all(sample.metadata.top1_score for sample in samples)


def test_days_count_from_today_and_the_window_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = datetime.now(UTC).date()
    old = a_log(tmp_path / "old.jsonl", (today - timedelta(days=7)).isoformat())
    assert sft(old, tmp_path / "out", "--keep-unscored", "--days", "7") == 2
    window = f"production logs: {today - timedelta(days=6)} to {today}, both days included"
    assert window in capsys.readouterr().out
    assert sft(old, tmp_path / "out", "--keep-unscored", "--days", "8") == 0
    assert f"{len(TOPICS)} samples, fewer than the wanted 10,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--days", "3", "--since", "2026-01-01"], "--days: takes the last days up to today"),
        (["--days", "0"], "--days 0: must be 1 or more"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "is after --until"),
    ],
)
def test_windows_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    log = a_log(tmp_path / "service.jsonl")
    command = ["--input", str(log), "--tenant", "fivedoctors", "--out", str(tmp_path / "out"), *options]
    assert build_rl.main(command) == 2 and words in capsys.readouterr().err
