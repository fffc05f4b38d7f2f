"""fill_baseline against real services on loopback: what training will ask is asked once, ahead of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import Response

from data_prep import build_rl, fill_baseline
from data_prep.bvt.row import NO_HIT
from data_prep.rows.columns import COLUMNS
from reward.engine import RewardEngine
from reward.records.sample import Sample, read_samples
from reward.settings.recipe import RewriterSettings, load_judge, load_tenant
from tests.support.commands import start_module
from tests.support.loopback_judge import LoopbackJudge
from tests.support.tenant_services import PATIENCE, LoopbackServices, write_tenant

PHONE = "13812345678"
PARTICULARS = (
    f"张伟先生，电话{PHONE}，身份证11010519491231002X，住北京市朝阳区建国路88号院3号楼502室，车牌京A12345，"
    "邮箱zhang.wei@example.com，微信号zhangwei_88，QQ：123456789，卡号6222021234567890123"
)


class Services(LoopbackServices):
    """Retrieval and the deployed rewriter. By the query's words: 坏写 → the rewriter fails, 坏搜 → retrieval fails,
    空 → no hit."""

    def __init__(self) -> None:
        self.healthy = threading.Event()
        self.answer_at_most: int | None = None  # further calls hang until `healthy`
        super().__init__(self.answer)

    def answer(self, path: str, body: dict[str, Any], number: int) -> Any:
        if self.answer_at_most is not None and number > self.answer_at_most:
            self.healthy.wait(300)
        if ("坏写" if path == "rewrite" else "坏搜") in body["query"] and not self.healthy.is_set():
            return Response(status_code=500)
        if path == "rewrite":
            return {"rewritten_query": f" {body['query']}　用法\u200b用量 "}
        hits = [{"content": f"文档{n}", "doc_id": f"d{n}", "reranker_score": 0.9 - n / 10} for n in range(5)]
        return {"data": {"recall": [] if "空" in body["query"] else hits}}

    def close(self) -> None:
        self.healthy.set()
        super().close()


@pytest.fixture
def services() -> Iterator[Services]:
    running = Services()
    yield running
    running.close()


@pytest.fixture
def judge() -> Iterator[LoopbackJudge]:
    server = LoopbackJudge(grade=lambda rewrite: 4)
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path, services: Services, judge: LoopbackJudge) -> Path:
    """Holds `tenant.yaml` and `judge.yaml`."""
    profile = {
        "model": "m",
        "base_url": judge.url,
        "price": {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12},
        **PATIENCE,
    }
    write_tenant(tmp_path / "tenant.yaml", services)
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return tmp_path


def rewrite_settings(file: Path, **changes: Any) -> None:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def command(folder: Path, source: Path, *options: str) -> list[str]:
    out, ledger = folder / "filled.jsonl", folder / "ledger.sqlite"
    named = {"--input": source, "--tenant": folder / "tenant.yaml", "--out": out, "--ledger": ledger}
    return [*(str(part) for pair in named.items() for part in pair), *options]


def judged(folder: Path) -> tuple[str, str]:
    return "--judge", str(folder / "judge.yaml")


def filled(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "filled.jsonl").read_text(encoding="utf-8").splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "filled.jsonl.manifest.json").read_text(encoding="utf-8"))


COMPLETE = {
    "query": "钙片怎么吃",
    "rewritten_query": "钙片 服用方法",
    "recall_results": [{"content": "钙片说明书", "score": 0.5}],
    "quality_score": 4.25,
    "success": True,
}


def test_training_finds_in_the_ledger_all_that_it_asks_about_the_baseline(
    folder: Path, services: Services, judge: LoopbackJudge
) -> None:
    source = write_rows(
        folder / "rows.jsonl",
        {"query": "鱼油　怎么吃", "history_context": "用户: 你好\r\n助手: 您好 ", "query_id": "q1"},
        {"query": f"电话{PHONE}的叶酸订单到哪了", "user_profile": "３５岁\u200b女性", "history_summary": "问过叶酸"},
        {"query": "维生素能一起吃吗", "rewritten_query": " 维生素  同服\u200b禁忌 ", "thought_unit": "比较"},
        {"query": "空腹能吃益生菌吗", "user_profile": PARTICULARS, "history_context": f"用户: {PARTICULARS}\n助手: 好"},
        COMPLETE,
    )
    qrels = folder / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\n", encoding="utf-8")
    options = [*judged(folder), "--qrels", str(qrels), "--all-rows"]
    assert fill_baseline.main(command(folder, source, *options)) == 0
    sent = json.dumps([services.requests, judge.requests], ensure_ascii=False)
    assert not [part for part in (PHONE, "11010519491231002X", "zhang.wei@example.com") if part in sent]

    tenant = str(folder / "tenant.yaml")
    built = ["--input", str(folder / "filled.jsonl"), "--tenant", tenant, "--out", str(folder / "data")]
    assert build_rl.main([*built, "--qrels", str(qrels), "--split", "train"]) == 0
    samples = read_samples(folder / "data" / "rl_train.jsonl")
    assert len(samples) >= 4 and all(sample.candidates.baseline for sample in samples)
    assert any(sample.relevant_doc_ids == ("d3",) for sample in samples)

    before, graded = services.asked, len(judge.requests)
    fields = asyncio.run(score(folder, samples, "鱼油 钙片 叶酸 益生菌 维生素 吃法"))
    assert all(field["abstained"] == field["gated"] == 0 for field in fields)
    # The policy's rewrite and the plain query are asked about, the baseline's rewrite is not.
    asked = services.asked - before
    plain = [request for request in asked if "吃法" not in request]
    assert len(asked) == 2 * len(samples) and len(plain) == len(samples)
    assert all(request.startswith("retrieve") for request in asked)
    queries = {sample.original_query for sample in samples}
    assert {json.loads(request.partition(" ")[2])["rewritten_query"] for request in plain} == queries
    assert len(judge.requests) - graded == len(samples)
    assert all("吃法" in judge.data(number)["改写"] for number in range(graded, len(judge.requests)))


async def score(folder: Path, samples: list[Sample], completion: str) -> list[dict[str, float | str]]:
    """What training makes of `completion` for each sample, with the settings and the ledger of `command`."""
    settings = RewriterSettings.model_validate(
        {
            "tenant": load_tenant(str(folder / "tenant.yaml")),
            "judge": load_judge(str(folder / "judge.yaml")),
            "reward": {"gates": []},
            "ledger": {"path": folder / "ledger.sqlite", "run_id": "training"},
        }
    )
    engine = RewardEngine(settings, folder / "run")
    try:
        return [await engine.score(sample, completion, step=1) for sample in samples]
    finally:
        await engine.aclose()


def test_rows_keep_their_order_and_what_was_recorded(folder: Path, services: Services, judge: LoopbackJudge) -> None:
    source = write_rows(
        folder / "rows.jsonl",
        {"query": "鱼油怎么吃", "query_id": "q1", "success": False, "error": "HTTP 500", "slices": ["难"]},
        COMPLETE,
        {"query": "叶酸怎么吃", "rewritten_query": "叶酸 服用方法"},
        {"query": "空腹能吃吗", "rewritten_query": "空腹 服用"},
    )
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    rewritten, complete, retrieved, empty = filled(folder)
    assert all(list(row) == ["source", *COLUMNS] for row in filled(folder))

    assert rewritten["original_query"] == "鱼油怎么吃" and rewritten["rewritten_query"] == "鱼油怎么吃 用法用量"
    assert (rewritten["success"], rewritten["error"], rewritten["slices"]) == (True, "", ["难"])
    assert [hit["doc_id"] for hit in rewritten["recall_results"]] == ["d0", "d1", "d2"]
    assert (rewritten["recall_count"], rewritten["top1_score"]) == (3, 0.9)
    assert rewritten["avg_top3_score"] == pytest.approx(0.8) and rewritten["quality_score"] == 4.0
    assert (complete["rewritten_query"], complete["quality_score"], complete["top1_score"]) == (
        "钙片 服用方法",
        4.25,
        0.5,
    )
    assert complete["recall_results"][0]["content"] == "钙片说明书"
    assert (retrieved["rewritten_query"], retrieved["top1_score"]) == ("叶酸 服用方法", 0.9)
    assert (empty["recall_count"], empty["top1_score"], empty["error"]) == (0, None, NO_HIT)
    assert empty["recall_results"] == [] and empty["success"] is not True

    assert Counter(path for path, _ in services.requests) == {"rewrite": 1, "retrieve": 3}
    retrievals = [body for path, body in services.requests if path == "retrieve"]
    assert {(body["top_k"], body["score_threshold"]) for body in retrievals} == {(100, 0.0)}
    assert len(judge.requests) == 3 * 3
    facts = manifest(folder)
    assert (facts["rows_in"], facts["written"], facts["complete"], facts["incomplete"]) == (4, 4, 1, 0)
    assert facts["filled"] == {"rewrites": 1, "hits": 3, "judgements": 3}


def test_rows_in_are_rows_written_and_rows_quarantined(
    folder: Path, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder / "in"
    source.mkdir()
    write_rows(
        source / "a.jsonl",
        {"query": "鱼油", "rewritten_query": "鱼油 功效"},
        {"query": "别家的问题", "tenant_id": "chengla"},
        {"query": "分数不对", "top1_score": "很高"},
    )
    (source / "b.csv").write_text("用户问题,改写查询\n叶酸,叶酸 功效\n,没有问题\n", encoding="gb18030")
    (source / "c.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    assert fill_baseline.main(command(folder, source)) == 0

    assert "rows in 5 = usable 2 + quarantined 3" in capsys.readouterr().out
    facts = manifest(folder)
    assert (facts["rows_in"], facts["written"], facts["quarantined"]) == (5, 2, 3)
    assert [row["original_query"] for row in filled(folder)] == ["鱼油", "叶酸"]
    lines = (folder / "filled.jsonl.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    unreadable, *refused = map(json.loads, lines)
    assert unreadable["file"] == str(source / "c.xlsx") and facts["unreadable"] == [unreadable]
    assert [(Path(line["file"]).name, line["row"]) for line in refused] == [
        ("a.jsonl", 2),
        ("a.jsonl", 3),
        ("b.csv", 3),
    ]
    assert refused[0]["reason"] == "belongs to tenant chengla" and refused[1]["reason"].startswith("top1_score: ")
    assert {body["query"] for _, body in services.requests} == {"鱼油", "叶酸"}


def test_what_fails_stays_empty_with_its_reason_and_is_asked_again(
    folder: Path, services: Services, judge: LoopbackJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(
        folder / "rows.jsonl",
        {"query": "坏写的问题"},
        {"query": "坏搜的问题"},
        {"query": "好问题", "rewritten_query": "好问题 改写"},
        {"query": "无需评分", "rewritten_query": "无需评分 改写", "quality_score": 4.0},
    )
    rewrite_settings(folder / "judge.yaml", baseline_votes=1)
    judge.faults = ["refusal"] * 2
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    no_rewrite, no_hits, ungraded, good = filled(folder)
    assert no_rewrite["error"] == "baseline: HTTP 500" and not no_rewrite["rewritten_query"]
    assert no_hits["error"].startswith("rag: HTTP 500") and no_hits["rewritten_query"] == "坏搜的问题 用法用量"
    for row in (no_rewrite, no_hits):
        assert row["recall_results"] is row["recall_count"] is row["top1_score"] is row["avg_top3_score"] is None
        assert row["quality_score"] is None
    assert "judge: refused" in ungraded["error"] and ungraded["top1_score"] == 0.9
    assert ungraded["quality_score"] is None and good["top1_score"] == 0.9 and good["error"] == ""
    assert manifest(folder)["incomplete"] == 3
    assert "3 rows are incomplete; the first: baseline: HTTP 500" in capsys.readouterr().out

    services.healthy.set()
    before = services.asked
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    assert Counter(path for path, _ in services.requests) == {"rewrite": 3, "retrieve": 5}
    again = {json.loads(request.partition(" ")[2])["query"] for request in services.asked - before}
    assert again == {"坏写的问题", "坏搜的问题"}
    assert all(row["error"] == "" and row["quality_score"] == 4.0 for row in filled(folder))

    capsys.readouterr()
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sum(services.asked.values()) == 8
    (folder / "ledger.sqlite").unlink()  # what training needs of this is the ledger
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    assert sum(services.asked.values()) == 8 + 2 + 4


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_fill_makes_no_answered_call_again(folder: Path, services: Services, stop: signal.Signals) -> None:
    rows = [{"query": f"问题{n}", "user_profile": f"用户{n % 5}"} for n in range(15)]
    source = write_rows(folder / "rows.jsonl", *rows)
    patient = {"max_concurrency": 2, "timeout": 300}
    rewrite_settings(folder / "tenant.yaml", rag=patient, baseline=patient)
    services.answer_at_most = 10
    arguments = command(folder, source)
    running = start_module("data_prep.fill_baseline", *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(3000):
            if answered(folder) == 10:
                break
            assert running.poll() is None, "the run ended too early"
            time.sleep(0.02)
        running.send_signal(stop)
        if stop is signal.SIGTERM:
            assert running.stderr is not None
            assert any("stopping" in line for line in running.stderr)
            running.send_signal(stop)
            assert running.wait(30) == 143
    finally:
        running.kill()
        running.wait()
    assert not (folder / "filled.jsonl").exists()
    assert answered(folder) == 10

    services.answer_at_most = None
    unanswered = len(services.requests) - 10
    services.healthy.set()
    assert fill_baseline.main(command(folder, source)) == 0
    assert [row["original_query"] for row in filled(folder)] == [row["query"] for row in rows]
    assert manifest(folder)["incomplete"] == 0
    # 15 rewrites and 15 retrievals, and again what was under way when the run ended.
    assert len(services.asked) == 30 and len(services.requests) == 30 + unanswered


def answered(folder: Path) -> int:
    if not (folder / "ledger.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True) as ledger:
        return ledger.execute("SELECT count(*) FROM calls WHERE status = 'ok'").fetchone()[0]


def test_a_dry_run_counts_the_calls_and_leaves_no_trace(
    folder: Path, services: Services, judge: LoopbackJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(
        folder / "rows.jsonl",
        {"query": "鱼油"},
        {"query": "鱼油"},
        {"query": "叶酸", "rewritten_query": "叶酸 功效"},
        COMPLETE,
        {"query": ""},
    )
    plan = command(folder, source, *judged(folder), "--dry-run")
    before = sorted(folder.iterdir())
    assert fill_baseline.main(plan) == 0
    shown = capsys.readouterr().out
    assert "rows in 5 = usable 4 + quarantined 1" in shown and "complete already: 1 rows" in shown
    # rows that lack it, in the ledger, calls to make; the two rows of one question need one call of each kind
    assert table(shown) == {"rewrites": [2, 0, 1], "hits": [3, 0, 2], "judgements": [3, 0, 6]}
    assert sorted(folder.iterdir()) == before and not services.requests and not judge.requests

    assert fill_baseline.main(command(folder, source, *judged(folder))) == 0
    assert Counter(path for path, _ in services.requests) == {"rewrite": 1, "retrieve": 2}
    assert len(judge.requests) == 6
    capsys.readouterr()
    assert fill_baseline.main(plan) == 0
    assert table(capsys.readouterr().out) == {"rewrites": [2, 2, 0], "hits": [3, 3, 0], "judgements": [3, 3, 0]}


def table(shown: str) -> dict[str, list[int]]:
    rows = [line.strip("│ ").split("│") for line in shown.splitlines() if line.startswith("│")]
    return {row[0].strip(): [int(cell) for cell in row[1:4]] for row in rows if row[0].strip()}


def test_a_spent_budget_asks_the_judge_nothing_more(
    folder: Path, judge: LoopbackJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(folder / "rows.jsonl", {"query": "鱼油"}, COMPLETE)
    assert fill_baseline.main(command(folder, source, *judged(folder), "--max-cny", "0.001")) == 2
    assert "budget of ¥0.00 would be exceeded" in capsys.readouterr().err
    row = filled(folder)[0]
    assert row["top1_score"] == 0.9 and row["quality_score"] is None and row["error"].startswith("judge: run budget")
    assert not judge.requests
    assert fill_baseline.main(command(folder, source, *judged(folder), "--max-cny", "100")) == 0
    assert filled(folder)[0]["quality_score"] == 4.0
    # Of 1000 input tokens at ¥4 a million, 400 cached ones at ¥0.5; 100 output tokens at ¥12: ¥0.0038 a grading.
    assert "judge: 3,300 tokens, ¥0.01" in capsys.readouterr().out


def test_without_a_baseline_the_other_rows_are_filled(
    folder: Path, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_settings(folder / "tenant.yaml", baseline={"url": None})
    source = write_rows(folder / "rows.jsonl", {"query": "鱼油"}, {"query": "叶酸", "rewritten_query": "叶酸 功效"})
    assert fill_baseline.main(command(folder, source)) == 0
    without, with_rewrite = filled(folder)
    assert without["error"] == "baseline: no recorded rewrite and no baseline url configured"
    assert with_rewrite["top1_score"] == 0.9
    shown = capsys.readouterr().out
    assert "1 rows are incomplete" in shown and table(shown)["rewrites"] == [0, 1, 0]
    assert fill_baseline.main(command(folder, source, "--baseline-url", services.url)) == 0
    assert all(row["error"] == "" for row in filled(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "0"], "--top-k 0"),
        (["--max-cny", "-1"], "--max-cny -1"),
        (["--max-cny", "nan"], "--max-cny nan"),
        (["--requests-per-minute", "0"], "requests_per_minute"),
        (["--judge", "nobody"], "known profiles"),
        (["--rag-url", "localhost"], "localhost: not an http(s) URL"),
        (["--qrels", "missing.tsv"], "missing.tsv: no such file"),
        (["--out", "o.xlsx"], "--out must end in .jsonl"),
        (["--rag-url", "http://127.0.0.1:9"], "RAG service http://127.0.0.1:9 is not reachable"),
    ],
)
def test_options_that_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    source = write_rows(folder / "rows.jsonl", {"query": "鱼油", "rewritten_query": "鱼油 功效"})
    assert fill_baseline.main(command(folder, source, *options)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (folder / "filled.jsonl").exists()


def test_a_judge_that_compares_cannot_grade(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite_settings(folder / "judge.yaml", mode="pairwise")
    source = write_rows(folder / "rows.jsonl", {"query": "鱼油"})
    assert fill_baseline.main(command(folder, source, *judged(folder))) == 2
    assert "mode pairwise grades no single rewrite" in capsys.readouterr().err


def test_a_damaged_ledger_is_named_and_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ledger.sqlite").write_bytes(b"no ledger " * 1000)
    source = write_rows(folder / "rows.jsonl", {"query": "鱼油"})
    assert fill_baseline.main(command(folder, source)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "ledger.sqlite" in lines[0]
    assert (folder / "ledger.sqlite").read_bytes() == b"no ledger " * 1000


def test_the_manual_names_files_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        fill_baseline.main(["--help"])
    assert exit_.value.code == 0
    manual = capsys.readouterr().out
    for word in (".quarantine.jsonl", "the ledger", "--all-rows", "examples", "exit codes", "143"):
        assert word in manual


def test_what_a_file_loses_is_named_before_anything_is_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "service.log"
    cut_off = {"data": {"query": "钙片怎么吃", "response": '{"rewritten_query": "钙片'}}
    lines = [{"query": "鱼油怎么吃", "user_profile": "NULL", "latency": 3}, cut_off]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    source.write_bytes(text.encode("gb18030"))
    assert fill_baseline.main(command(folder, source)) == 0
    said = capsys.readouterr().out
    expected = [
        f"note: {source}: read as GB18030 2 lines",
        f"note: {source}: keys not read: latency",
        f"passed over: user_profile: read as not recorded: 1 (NULL), first in row 1 of {source}",
        "passed over: data.response: packed JSON cannot be read: 1 (Unterminated string starting at: character 21 of "
        f"23), first in row 2 of {source}",
    ]
    assert all(line in said.splitlines() for line in expected), said
    assert manifest(folder)["notes"] == [line.removeprefix("note: ") for line in expected[:2]] + sorted(expected[2:])
    assert [row["rewritten_query"] for row in filled(folder)] == ["鱼油怎么吃 用法用量", "钙片怎么吃 用法用量"]
