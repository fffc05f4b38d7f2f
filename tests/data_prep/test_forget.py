"""A person is found in everything that these programs write, and removed; everybody else stays."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from openpyxl import Workbook, load_workbook

from data_prep import build_rl, build_sft, forget
from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from data_prep.dataset.artefacts import is_current, read_manifest
from data_prep.readers.sources import Sources
from evaluation.medical.review_sheet import read_review, write_review
from guard.personal.masking import mask_id
from rag.build_index import main as build_index
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.documents.records import Document, Passage
from reward.ledger.ledger import Ledger
from reward.records.call import Call, CallKind, CallTrace, content_key
from reward.records.files import file_sha256, read_jsonl
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
    assert "no workbook of these programs" in " ".join(capsys.readouterr().out.split())


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def medical(tmp_path: Path) -> Path:
    """The root of a medical assistant with everything of a round that may hold a person."""
    root = tmp_path / "medical"
    told, other = f"我叫{NAME}，头痛三天怎么办", "流鼻涕怎么办，三天了"
    # The archive: the service wrote its answer with JSON's escapes, one object within another.
    opinion = json.dumps({"comment": f"{NAME}的头痛需要检查", "teacher_score": 0.5})
    body = json.dumps({"choices": [{"message": {"content": opinion}}]})
    kept = json.dumps({"choices": [{"message": {"content": json.dumps({"comment": "普通感冒"})}}]})
    archive = [{"key": "a", "messages": [], "answer": body}, {"key": "b", "messages": [], "answer": kept}]
    archive += [{"key": "c", "messages": [{"role": "user", "content": f"<<<\n{{{told!r}}}\n>>>"}], "answer": ""}]
    archive += [{"key": "cut", "messages": [], "answer": body[: body.index("teacher_score")]}]
    write_lines(root / "logs/deepseek_teacher/2026-11-28.jsonl", archive)
    samples = [{"question": told, "answer": "去医院检查"}, {"question": other, "answer": "多喝水"}]
    write_lines(root / "data/rl/teacher_conflicts.jsonl", samples)
    write_lines(root / "data/rl/review_labels.jsonl", [line | {"review_id": "mr-1"} for line in samples])
    values = [{"key": line["question"][:4], "value": line} for line in samples]
    write_lines(root / "data/rl/teacher_judgements.jsonl", values)
    answers = write_lines(root / "models/rl/r1/answers.jsonl", samples)
    page = root / "reports/rl_stage/samples_r1.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"## sample\n{told}\n去医院检查看看\n## sample\n{other}\n", encoding="utf-8")
    hashes = {str(path.relative_to(root)): file_sha256(path) for path in (answers, page)}
    (root / "models/rl/r1/round.json").write_text(json.dumps({"round": "r1", "files": hashes}), encoding="utf-8")
    shutil.copytree(answers.parent, root / "models/rl/v1.0-rl")
    release = {"version": "v1.0-rl", "files": {"answers.jsonl": hashes["models/rl/r1/answers.jsonl"]}}
    (root / "models/rl/v1.0-rl/release.json").write_text(json.dumps(release), encoding="utf-8")
    drawn = [
        {"review_id": f"mr-00000000000{n}", "question": text, "answer": "看", "advice": "建议"}
        for n, text in enumerate((told, other))
    ]
    (root / "reports/review").mkdir()
    write_review(root / "reports/review/2026-W48.xlsx", drawn)
    write_lines(root / "reports/review/2026-W48.jsonl", drawn)
    prompts = write_lines(
        root / "data/rl/training_prompts.jsonl", [{"original_query": told}, {"original_query": other}]
    )
    manifest = {"dataset": "medical_rl", "training_prompts": 2, "outputs": {prompts.name: file_sha256(prompts)}}
    (root / "data/rl/medical_dataset.json").write_text(json.dumps(manifest), encoding="utf-8")
    return root


def test_a_person_is_removed_from_the_medical_task(medical: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--person", NAME, medical, "--yes") == 0
    out = capsys.readouterr().out
    assert NAME not in out
    texts = "\n".join(read_artefacts(medical).values())
    escaped = json.dumps(NAME)[1:-1]
    assert NAME not in texts and escaped.split("\\")[1] not in texts
    # Everybody else is there.
    assert [line["key"] for _, line in read_jsonl(medical / "logs/deepseek_teacher/2026-11-28.jsonl")] == ["b"]
    for name in ("teacher_conflicts", "review_labels", "teacher_judgements", "training_prompts"):
        assert len(list(read_jsonl(medical / f"data/rl/{name}.jsonl"))) == 1
    assert "流鼻涕怎么办" in (medical / "reports/rl_stage/samples_r1.md").read_text(encoding="utf-8")
    # The review goes on with the rest: the workbook has its row, and no advice of the other.
    rows = {line["review_id"]: line for _, line in read_jsonl(medical / "reports/review/2026-W48.jsonl")}
    book = load_workbook(medical / "reports/review/2026-W48.xlsx")
    assert [sheet.max_row for sheet in book] == [2, 2] and list(rows) == [book["advice"]["A2"].value]
    book["review"]["F2"] = "是"
    book.save(medical / "filled.xlsx")
    assert len(read_review(medical / "filled.xlsx", rows).labels) == 1


def test_records_of_rounds_and_releases_name_the_files_as_they_are(medical: Path) -> None:
    assert run("--person", NAME, medical, "--yes") == 0
    for record, root in (("r1/round.json", medical), ("v1.0-rl/release.json", medical / "models/rl/v1.0-rl")):
        found = json.loads((medical / "models/rl" / record).read_text(encoding="utf-8"))
        assert found["forgotten"] and all(file_sha256(root / name) == told for name, told in found["files"].items())
    manifest = json.loads((medical / "data/rl/medical_dataset.json").read_text(encoding="utf-8"))
    assert manifest["training_prompts"] == 1


def test_a_workbook_that_is_only_named_alike_is_left_to_its_owner(tmp_path: Path) -> None:
    book = Workbook()
    book.active.title = "review"
    book.active.append(["客户", "评价"])
    book.active.append([NAME, "好"])
    book.save(tmp_path / "export.xlsx")
    assert run("--person", NAME, tmp_path, "--yes") == 1
    assert load_workbook(tmp_path / "export.xlsx").active.max_row == 2
