"""Personal data in every column of every kind of file and in what services answer: no command writes or prints it."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
import yaml

from data_prep import build_feedback, build_rl, build_sft, fill_baseline, run_bvt
from data_prep.rows.columns import COLUMNS
from evaluation import compare
from rag import learn_from_clicks
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.documents.records import Document, Passage
from reward import audit, export_ledger, export_rollouts, replay
from reward.engine import RewardEngine
from reward.records.sample import Candidates, read_samples
from reward.settings.recipe import RewriterSettings, load_judge, load_tenant
from tests.support.loopback_judge import LoopbackJudge
from tests.support.planted_data import ID, SECRETS, WORDS, find_planted, open_modes, read_artefacts
from tests.support.tenant_services import LoopbackServices, write_tenant

HITS = [{"content": f"联系{WORDS}", "doc_id": ID, "score": 0.9}]
SANE = {
    "original_query": "鱼油怎么吃",
    "rewritten_query": "鱼油 服用方法 用量",
    "success": True,
    "top1_score": 0.9,
    "recall_results": HITS,
    "query_id": "q",
}
QUERIES = ("钙片睡前吃吗", "叶酸吃多久", "益生菌饭前饭后", "维生素能同服吗", "蛋白粉怎么冲")


def rows() -> list[dict[str, Any]]:
    """One row a column that holds the words, two that hold them as a query, and sane ones."""
    found = [{**SANE, "original_query": f"{query}{n}"} for n in range(8) for query in QUERIES]
    for n, column in enumerate(COLUMNS):
        found.append({**SANE, "original_query": f"{QUERIES[n % 5]}第{n}种", column: WORDS})
        found.append({**SANE, "original_query": f"{QUERIES[n % 5]}第{n}类", column: ID})
    return [*found, {**SANE, "query_id": ID}, {**SANE, "original_query": "他说", "rewritten_query": WORDS}]


def cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def write_jsonl(folder: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows()]
    odd = [f'{{"query": "{WORDS}', json.dumps({"query": {WORDS: [WORDS]}}, ensure_ascii=False), f'["{WORDS}"]', WORDS]
    (folder / "rows.jsonl").write_text("\n".join([*lines, *odd]), encoding="utf-8")


def write_log(folder: Path) -> None:
    lines = [
        {"payload": row | {"query": row["original_query"]}, "response": row, "query_id": row["query_id"], WORDS: WORDS}
        for row in rows()
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "service.log").write_text(text, encoding="utf-8")


def write_csv(folder: Path) -> None:
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, WORDS])
        table.writerows([*(cell(row.get(name, "")) for name in COLUMNS), WORDS] for row in rows())


def write_xlsx(folder: Path) -> None:
    book = xlsxwriter.Workbook(str(folder / "rows.xlsx"), {"strings_to_urls": False})
    for name, headings in (("陈建国先生13812345678", [*COLUMNS, WORDS]), ("陈建国先生13987654321", [WORDS, "x"])):
        sheet = book.add_worksheet(name)
        sheet.write_row(0, 0, headings)
        for number, row in enumerate(rows(), start=1):
            sheet.write_row(number, 0, [*(cell(row.get(name, "")) for name in COLUMNS), WORDS])
    book.close()


def write_unreadable(folder: Path) -> None:
    """Files whose refusal may quote what they hold."""
    write_jsonl(folder)
    for name, text in {
        "headings.csv": f"{WORDS},鱼油\n1,2\n",
        "twice.csv": f"original_query,original_query\n{WORDS},{WORDS}\n",
        "cut.json": f'[{{"query": "{WORDS}"',
        "text.csv": f"{WORDS}\n",
        "damaged.xlsx": WORDS,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


KINDS = {"jsonl": write_jsonl, "log": write_log, "csv": write_csv, "xlsx": write_xlsx, "unreadable": write_unreadable}


def told(path: str, body: dict[str, Any], number: int) -> Any:
    """What services answer that know the person and tell of it."""
    if path == "rewrite":
        return {"rewritten_query": f"{body['query']} 用法 {WORDS}"}
    hits = [{"content": f"第{n}篇，{WORDS}", "doc_id": f"{n}{ID}", "reranker_score": 0.9 - n / 10} for n in range(4)]
    context = {"rewritten_query": WORDS, "user_profile": WORDS, "history_summary": WORDS}
    return {"data": {"recall": hits, "reranker": "m", **context}}


@pytest.fixture
def services() -> Iterator[LoopbackServices]:
    running = LoopbackServices(told)
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path, services: LoopbackServices) -> Iterator[Path]:
    """Holds `tenant.yaml`, an empty folder `in` and what commands write in `out`."""
    filters = {"query_length": [2, 2000], "rewrite_length": [2, 2000], "max_length_ratio": 1000}
    write_tenant(tmp_path / "tenant.yaml", services, filters=filters)
    (tmp_path / "in").mkdir()
    mask = os.umask(0o022)
    yield tmp_path
    os.umask(mask)


class Commands:
    """Runs commands and looks at all they leave: files below `out`, and what they print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.out, self._capsys = folder, folder / "out", capsys

    def run(self, main: Callable[[list[str]], int], *arguments: object, code: int = 0) -> None:
        assert main([*map(str, arguments)]) == code, self._capsys.readouterr()
        self.check()

    def check(self) -> None:
        said = self._capsys.readouterr()
        found = {name: planted for name, text in read_artefacts(self.out).items() if (planted := find_planted(text))}
        assert not found
        assert not find_planted(said.out + said.err), said
        assert not open_modes(self.out)


@pytest.fixture
def commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(folder, capsys)


def test_the_search_finds_what_is_planted(folder: Path) -> None:
    assert find_planted(WORDS) == list(SECRETS[:3]) + list(SECRETS[4:])
    for kind, write in KINDS.items():
        (folder / kind).mkdir()
        write(folder / kind)
        assert any(map(find_planted, read_artefacts(folder / kind).values())), kind


@pytest.mark.parametrize("kind", KINDS)
def test_data_sets_batch_tests_and_filled_rows(
    folder: Path, commands: Commands, services: LoopbackServices, kind: str
) -> None:
    KINDS[kind](folder / "in")
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t1{ID}\t1\n{ID}\td1\t1\n", encoding="utf-8")
    given = ["--input", folder / "in", "--tenant", folder / "tenant.yaml"]
    commands.run(build_sft.main, *given, "--out", commands.out / "sft", "--keep-unscored", "--dry-run")
    commands.run(build_sft.main, *given, "--out", commands.out / "sft", "--keep-unscored")
    commands.run(build_rl.main, *given, "--out", commands.out / "rl", "--qrels", folder / "qrels.tsv")
    filled = ["--out", commands.out / "filled.jsonl", "--ledger", commands.out / "ledger.sqlite", "--all-rows"]
    commands.run(fill_baseline.main, *given, *filled)
    asked = ["--queries", folder / "in", "--tenant", folder / "tenant.yaml", "--out", commands.out / "bvt.xlsx"]
    commands.run(run_bvt.main, *asked)
    assert services.requests and not find_planted(json.dumps(services.requests, ensure_ascii=False))

    # Masked is not lost: the rows are there, each with the placeholders, and known passages are still known.
    artefacts = read_artefacts(commands.out)
    assert all(
        "[电话]" in artefacts[name] for name in ("rl/rl_train.jsonl", "filled.jsonl", "bvt.xlsx", "ledger.sqlite")
    )
    samples = read_samples(commands.out / "rl" / "rl_train.jsonl")
    assert any(sample.relevant_doc_ids for sample in samples)


def test_a_run_and_all_that_is_made_of_it(folder: Path, commands: Commands, services: LoopbackServices) -> None:
    write_jsonl(folder / "in")
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t1{ID}\t1\n", encoding="utf-8")
    given = ["--input", folder / "in", "--tenant", folder / "tenant.yaml", "--split", "test"]
    commands.run(build_rl.main, *given, "--out", commands.out / "rl", "--qrels", folder / "qrels.tsv")
    samples = read_samples(commands.out / "rl" / "rl_test.jsonl")[:30]
    judge = LoopbackJudge(grade=lambda rewrite: 4)
    profile = {
        "model": "m",
        "base_url": judge.url,
        "price": {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12},
    }
    (folder / "judge.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    unrecorded = [sample.model_copy(update={"candidates": Candidates()}) for sample in samples[:3]]

    async def score() -> list[dict[str, float | str]]:
        settings = RewriterSettings.model_validate(
            {
                "tenant": load_tenant(str(folder / "tenant.yaml")),
                "judge": load_judge(str(folder / "judge.yaml")),
                "reward": {"gates": []},
                "ledger": {"path": commands.out / "run" / "ledger.sqlite", "run_id": "training"},
            }
        )
        engine = RewardEngine(settings, commands.out / "run")
        try:
            return [
                await engine.score(sample, "鱼油 吃法 用量", step=n) for n, sample in enumerate([*samples, *unrecorded])
            ]
        finally:
            await engine.aclose()

    fields = asyncio.run(score())
    judge.close()
    assert {field["abstained"] for field in fields} == {0.0}, fields
    assert not find_planted(json.dumps([fields, services.requests, judge.requests], ensure_ascii=False))
    commands.check()
    run = commands.out / "run"
    commands.run(audit.main, "--run", run)
    commands.run(replay.main, "--run", run, "--formula", "v1", "--out", commands.out / "replayed.csv")
    commands.run(export_ledger.main, "--ledger", run / "ledger.sqlite", "--out", commands.out / "usage")
    commands.run(export_rollouts.main, "--run", run, "--out", commands.out / "records.jsonl")
    assert "[电话]" in (commands.out / "records.jsonl").read_text(encoding="utf-8")
    test = commands.out / "rl" / "rl_test.jsonl"
    commands.run(compare.main, "--test", test, "--tenant", folder / "tenant.yaml", "--out", commands.out / "compared")
    ranked = json.loads((commands.out / "compared" / "metrics.json").read_text(encoding="utf-8"))
    assert ranked


def test_clicks(folder: Path, commands: Commands) -> None:
    fields = ("query", "passage", "doc_id", "request_id", "timestamp", "rewritten_query", "user_profile")
    fields += ("history_summary", "history_context", "tenant_id", "position", "clicked")
    lines = []
    for n in range(12):
        lines += [
            {"query": WORDS, "passage": WORDS, "doc_id": ID, "clicked": True, "position": 2, "request_id": f"{ID}{n}"}
        ]
        lines += [{"query": "鱼油怎么吃", "doc_id": f"7{ID}", "clicked": True, "position": 3, "request_id": f"r{n}"}]
        lines += [
            {
                "query": "鱼油怎么吃",
                "passage": "x",
                "doc_id": "d1",
                "clicked": False,
                "position": 1,
                "request_id": f"r{n}",
            }
        ]
    lines += [{"query": "钙片", "passage": "钙", "doc_id": "d2", "clicked": True, field: WORDS} for field in fields]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "in" / "clicks.jsonl").write_text(f'{text}\n{{"query": "{WORDS}\n', encoding="utf-8")
    corpus = [{"_id": f"7{ID}", "title": WORDS, "text": WORDS}, {"_id": "d1", "text": "别的"}]
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in corpus), "utf-8")
    given = ["--input", folder / "in", "--tenant", folder / "tenant.yaml", "--corpus", folder / "corpus.jsonl"]
    commands.run(build_feedback.main, *given, "--out", commands.out / "feedback")
    pairs = [json.loads(line) for line in (commands.out / "feedback" / "confident_pairs.jsonl").open(encoding="utf-8")]
    [known] = [pair for pair in pairs if pair["query"] == "鱼油怎么吃" and pair["verdict"] == "positive"]
    assert known["text"].startswith("[姓名]先生")  # found in the corpus by its id
    assert {pair["shown"] for pair in pairs if pair["query"] != "钙片"} == {12}  # lists are still told apart


def test_what_a_service_learns_from_clicks(folder: Path, commands: Commands) -> None:
    data = folder / "data"
    catalogue = Catalogue(data)
    kb = catalogue.create_knowledge_base("fivedoctors", "default").id
    catalogue.put_documents(kb, [Document(ID, (Passage(ID, WORDS),)), Document("d", (Passage("d", "钙片"),))])
    passage = catalogue.passage(kb, "d")
    assert passage is not None
    catalogue.put_questions(kb, passage.id, [(WORDS, 0.5)])
    for n in range(12):
        for place, key in enumerate(("d", ID), start=1):
            Clicks(catalogue).record(Click(kb, WORDS, WORDS, key, key == ID, place, f"{n}"))
    catalogue.close()
    commands.run(
        learn_from_clicks.main,
        "--index",
        data,
        "--tenant",
        "fivedoctors",
        "--kb-name",
        "default",
        "--out",
        commands.out,
    )
    assert "[姓名]先生" in (commands.out / "reranker_pairs.jsonl").read_text(encoding="utf-8")


def test_a_refusal_quotes_nobody(folder: Path, commands: Commands) -> None:
    (folder / "in" / "rows.csv").write_text(f"{WORDS},鱼油\n1,2\n", encoding="utf-8")
    given = ["--input", folder / "in", "--tenant", folder / "tenant.yaml", "--out", commands.out / "sft"]
    for command in (build_sft, build_rl):
        commands.run(command.main, *given, code=2)
    (folder / "qrels.tsv").write_text(f"{WORDS}\n", encoding="utf-8")
    commands.run(build_rl.main, *given, "--qrels", folder / "qrels.tsv", code=2)
