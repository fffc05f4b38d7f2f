"""A person is found in everything that these programs write, and removed; everybody else stays."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep import build_rl, build_sft, forget
from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from data_prep.dataset.artefacts import is_current, read_manifest
from data_prep.readers.sources import Sources
from guard.personal.masking import mask_id
from rag.build_index import main as build_index
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.documents.records import Document, Passage
from reward.ledger.ledger import Ledger
from reward.records.call import Call, CallKind, CallTrace, content_key
from reward.records.sample import Hit, read_samples
from reward.records.spreadsheet import CsvTable
from reward.rollouts.rollout_log import RolloutLog, read_rollouts
from reward.settings.data import SourceSettings
from reward.settings.recipe import LedgerSettings
from tests.support.logged_rollouts import make_rollout, make_sample
from tests.support.planted_data import open_modes, read_artefacts

NAME = "欧阳雪莉"  # a bare name, which no mask knows
QUERIES = ("钙片睡前吃吗", "叶酸吃多久", "益生菌饭前饭后", "维生素能同服吗", "蛋白粉怎么冲", "鱼油给孩子吃行吗")


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    path = tmp_path / "tenant.yaml"
    values = {"tenant_id": "fivedoctors", "short_id": "fivedr", "system_prompt": "你是查询优化专家。"}
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path, tenant: Path) -> Path:
    """A folder with everything that may hold a person."""
    data = tmp_path / "data"
    rows = [
        {
            "original_query": f"{query}第{n}问" + (f"，我是{NAME}" if n == 3 else ""),
            "rewritten_query": f"{query} 用法 {n}",
            "user_profile": NAME if n == 5 else "",
            "success": True,
            "top1_score": 0.9,
            "query_id": "陈建国先生13812345678" if n == 7 else f"q{n}",
        }
        for n in range(9)
        for query in QUERIES
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    for build in (build_sft, build_rl):
        given = ["--input", str(source), "--tenant", str(tenant), "--out", str(data / build.__name__.split("_")[-1])]
        assert build.main(given) == 0

    ledger = Ledger(LedgerSettings(path=data / "run" / "ledger.sqlite", run_id="r"))
    for n, text in enumerate((f"{NAME}的改写", "鱼油 用法")):
        call = Call(CallKind.BASELINE, content_key(n), "m", "fivedoctors")
        ledger.record(call, {"rewritten_query": text}, CallTrace(attempts=1), 0.5)
    ledger.keep_passages({"a": f"{NAME}的会员卡", "b": "鱼油每日两粒"})
    ledger.close()
    log = RolloutLog(data / "run" / "rollouts")
    for n in range(6):
        changed = {"original_query": f"{NAME}问鱼油"} if n == 2 else {}
        log.append(make_rollout(n, n, sample=make_sample(n, **changed)))
    log.close()

    hits = (Hit(content="鱼油每日两粒", doc_id="d1", score=0.5),)
    bvt = [BvtRow(original_query=f"鱼油{n}", recall_results=hits, recall_count=1, success=True) for n in range(4)]
    told = BvtRow(original_query="鱼油", history_summary=f"{NAME}买过", slices=("a", "b"))
    write_workbook(data / "bvt.xlsx", [*bvt[:2], told, *bvt[2:]])
    with (data / "replayed.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = CsvTable(file, ["step", "query"])
        for row in ((1, "=1+1"), (2, f"{NAME}问"), (3, "鱼油")):
            table.write(row)
    (data / "trainer.log").write_text(f"step 1\nquery of {NAME}\nstep 2\n", encoding="utf-8")
    (data / "report.html").write_text(f"<p>{NAME}问，鱼油怎么吃</p>", encoding="utf-8")

    folder = data / "kb"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("鱼油每日两粒，随餐食用。", encoding="utf-8")
    assert build_index(["--kb-dir", str(corpus), "--tenant", "fivedoctors", "--out", str(folder)]) == 0
    catalogue = Catalogue(folder)
    [kb] = catalogue.knowledge_bases()
    passages = (Passage("m#1", "会员须知"), Passage("m#2", f"会员{NAME}的记录", ("谁的记录",)), Passage("m#3", "退货"))
    catalogue.put_documents(kb.id, [Document("m", passages), Document("n", (Passage("n#1", f"{NAME}的来信"),))])
    for query in (f"{NAME}的订单", "鱼油怎么吃"):
        Clicks(catalogue).record(Click(kb.id, query, query, "m#1", True, 1, "r"))
    catalogue.close()
    return data


def run(*arguments: object) -> int:
    return forget.main([*map(str, arguments)])


def everything(data: Path) -> str:
    return "\n".join(text for name, text in read_artefacts(data).items() if "shards" not in name)


def test_nothing_is_changed_without_yes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_artefacts(data)
    assert run(data, "--person", NAME) == 0
    said = capsys.readouterr().out
    assert "add --yes" in said and NAME not in said
    counts = json.loads(said.splitlines()[-1])
    assert counts["found"] > 20 and counts["removed"] == 0
    assert {name: text for name, text in read_artefacts(data).items() if "catalogue" not in name} == {
        name: text for name, text in before.items() if "catalogue" not in name
    }
    assert NAME in everything(data)


def test_a_person_is_removed_from_everything_and_nobody_else(
    data: Path, tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = read_samples(data / "rl" / "rl_train.jsonl") + read_samples(data / "rl" / "rl_val.jsonl")
    gone = [sample for sample in kept if NAME in sample.model_dump_json()]
    assert len(gone) == 12 and len(kept) > 40
    manifest = read_manifest(data / "rl" / "rl_dataset_auto.json")
    assert manifest is not None
    capsys.readouterr()

    assert run(data, "--person", NAME, "--yes") == 0
    said = capsys.readouterr().out
    assert NAME not in said and NAME not in everything(data)
    assert NAME.encode() not in (data / "run" / "ledger.sqlite").read_bytes()  # nor in freed pages
    counts = json.loads(said.splitlines()[-1])
    assert counts["found"] == counts["removed"] > 20

    # Everybody else is there, in data sets that are whole and current.
    left = read_samples(data / "rl" / "rl_train.jsonl") + read_samples(data / "rl" / "rl_val.jsonl")
    assert [s.sample_id for s in left] == [s.sample_id for s in kept if s not in gone]
    rows = sum(pq.read_metadata(data / "rl" / f"rl_{split}.parquet").num_rows for split in ("train", "val"))
    assert rows == len(left)
    renewed = read_manifest(data / "rl" / "rl_dataset_auto.json")
    assert renewed is not None and renewed["total_samples"] == len(left) == sum(renewed["splits"].values())
    assert renewed["forgotten"][0]["rows"]["rl_train.jsonl"] > 0
    for path in (data / "rl" / "rl_dataset_auto.json", data / "sft" / "dataset_latest.json"):
        assert is_current(path, (read_manifest(path) or {})["request"])
    assert (
        build_rl.main(["--input", str(tmp_path / "rows.jsonl"), "--tenant", str(tenant), "--out", str(data / "rl")])
        == 0
    )
    assert "up to date" in capsys.readouterr().out and NAME not in everything(data)

    assert [rollout.step for rollout in read_rollouts(data / "run")] == [0, 1, 3, 4, 5]
    with closing(sqlite3.connect(data / "run" / "ledger.sqlite")) as db:
        assert db.execute("SELECT status, cny, value IS NULL FROM calls ORDER BY id").fetchall() == [
            ("forgotten", 0.5, 1),
            ("ok", 0.5, 0),
        ]
        assert db.execute("SELECT key FROM passages").fetchall() == [("b",)]
    Ledger(LedgerSettings(path=data / "run" / "ledger.sqlite", run_id="r")).close()
    [batch] = Sources([data / "bvt.xlsx"], SourceSettings(), ("original_query",)).batches()
    assert batch.column("original_query").to_pylist() == ["鱼油0", "鱼油1", "鱼油2", "鱼油3"]
    assert (
        batch.column("recall_count").to_pylist() == [1, 1, 1, 1] and "d1" in batch.column("recall_results")[3].as_py()
    )
    assert (data / "replayed.csv").read_text(encoding="utf-8-sig").split() == ["step,query", "1,'=1+1", "3,鱼油"]
    assert (data / "trainer.log").read_text() == "step 1\nstep 2\n"
    assert "[已删除]问，鱼油怎么吃" in (data / "report.html").read_text(encoding="utf-8")
    catalogue = Catalogue(data / "kb")
    [kb] = catalogue.knowledge_bases()
    assert [passage.key for passage in catalogue.document(kb.id, "m")] == ["m#1", "m#3"]
    assert [row.name for row in catalogue.documents(kb.id)] == ["a.txt", "m"]
    assert [click.query for click in Clicks(catalogue).read(kb.id)] == ["鱼油怎么吃"]
    catalogue.close()
    assert not {name for name in open_modes(data) if name.endswith(("jsonl", "parquet", "xlsx", "csv"))}

    assert run(data, "--person", NAME, "--yes") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["found"] == 0


def test_by_id_also_where_the_id_is_masked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = "陈建国先生13812345678"
    lines = [
        {"query_id": mask_id(raw)},
        {"query_id": "q1"},
        {"request": {"id": raw}},
        {"query_id": f"{raw}x"},
        {"n": 4711},
    ]
    path = tmp_path / "filled.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert run(path, "--id", raw, "--id", "4711", "--yes") == 0
    assert path.read_text(encoding="utf-8") == "".join(
        json.dumps(line, ensure_ascii=False) + "\n" for line in (lines[1], lines[3])
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["removed"] == 3


def test_a_pattern_finds_other_spellings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"q": "１３８１２３４５６７８"}\n{"q": "Li LEI"}\n{"q": "\\u9648\\u5efa\\u56fd"}\n{"q": "x"}\n', "utf-8"
    )
    assert run(path, "--person", "138.?1234.?5678", "--person", "li lei", "--person", "陈建国", "--yes") == 0
    assert path.read_text(encoding="utf-8") == '{"q": "x"}\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the person"),
        (("--person", "("), "not a regular expression"),
        (("--person", ".*"), "fits every text"),
        (("--id", " "), "--id: is empty"),
    ],
)
def test_what_cannot_be_looked_for_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert run(tmp_path, *arguments, "--yes") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert run(tmp_path / "none", "--person", "x") == 2


def test_what_cannot_be_looked_into_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"x")
    (tmp_path / "b.parquet").write_bytes(b"x")
    (tmp_path / "c.sqlite").write_bytes(b"x" * 5000)
    (tmp_path / "d.xlsx").write_bytes(b"x")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert run(tmp_path, "--person", NAME, "--yes") == 0
    said = capsys.readouterr().out
    assert all(
        f"not looked into: {tmp_path / name}" in said for name in ("a.jsonl.gz", "b.parquet", "c.sqlite", "d.xlsx")
    )
    assert "trained again" in said


def test_an_export_in_a_workbook_is_found_and_left_to_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import xlsxwriter

    book = xlsxwriter.Workbook(str(tmp_path / "export.xlsx"))
    book.add_worksheet().write_column(0, 0, ["query", NAME, "鱼油"])
    book.close()
    assert run(tmp_path, "--person", NAME, "--yes") == 1
    assert "no workbook of run_bvt" in " ".join(capsys.readouterr().out.split())
