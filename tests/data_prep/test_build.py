"""From a workbook to SFT and RL data: funnel, splits, augmentation, parquet, determinism, messages to the user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from data_prep import build_rl, build_sft
from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from data_prep.dataset.augment import augment
from data_prep.prompt import TEMPLATES, build_messages
from data_prep.questions.split import bare
from data_prep.text.normalise import normalise_line, normalise_lines
from reward.records.sample import Candidates, Context, Metadata, Sample, read_samples
from reward.settings.recipe import Language, TenantSettings, load_tenant

TENANT = load_tenant("fivedoctors")


def row(number: int, **fields: Any) -> BvtRow:
    given = {
        "original_query": f"第{number}款鱼油怎么吃效果好",
        "rewritten_query": f"第{number}款鱼油怎么吃效果最好",
        "top1_score": 0.8,
        "recall_count": 5,
        "success": True,
        "query_id": f"q{number}",
    }
    return BvtRow(**(given | fields))


def export(path: Path, rows: Sequence[BvtRow]) -> Path:
    write_workbook(path, rows)
    return path


def sft(source: Path, out: Path, *options: str) -> int:
    return build_sft.main(["--input", str(source), "--tenant", "fivedoctors", "--out", str(out), *options])


def rl(source: Path, out: Path, *options: str) -> int:
    return build_rl.main(["--input", str(source), "--tenant", "fivedoctors", "--out", str(out), *options])


def contents(folder: Path) -> dict[str, bytes]:
    """Data files without their time stamps; headers and manifests carry a time by design."""
    found = (p for p in sorted(folder.iterdir()) if "dataset" not in p.name and not p.is_symlink())
    return {p.name.split("_20")[0]: p.read_bytes() for p in found}


def quarantine(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_funnel_tells_the_truth(tmp_path: Path) -> None:
    bad = [
        row(101, success=False),
        row(102, top1_score=0.59),
        row(103, top1_score=None),
        row(104, rewritten_query=" "),
        row(105, rewritten_query="第105款鱼油怎么吃效果好 "),
        row(106, original_query="鱼"),
        row(107, original_query="长" * 201),
        row(108, rewritten_query="长" * 501),
        row(109, original_query="鱼油", rewritten_query="长" * 11),
        row(1, top1_score=0.7),
    ]
    source = export(tmp_path / "in.xlsx", [*bad, *(row(n) for n in range(1, 41))])
    assert sft(source, tmp_path / "out", "--no-augment") == 0
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert [(s["rows_in"], s["rows_out"]) for s in stats["funnel"]] == [
        (50, 50),  # readable
        (50, 50),  # of this tenant
        (50, 49),  # success
        (49, 47),  # top1_score
        (47, 46),  # rewrite present
        (46, 45),  # rewrite differs
        (45, 43),  # query length
        (43, 42),  # rewrite length
        (42, 41),  # length ratio
        (41, 40),  # duplicates
        (40, 40),  # near-duplicates
        (40, 40),  # leaks
    ]
    assert stats["retention"] == 0.8
    assert stats["splits"]["all"]["samples"] == 40
    page = (tmp_path / "out" / "stats.html").read_text()
    assert "<td>duplicates</td><td>41</td><td>40</td>" in page and "http" not in page
    left_out = quarantine(tmp_path / "out" / "quarantine.jsonl")
    assert [(q["row"], q["step"], q["reason"]) for q in left_out] == [
        (2, "success", "not a success"),
        (3, "top1_score ≥ 0.6", "top1_score 0.59 < 0.6"),
        (4, "top1_score ≥ 0.6", "top1_score is not recorded"),
        (5, "rewrite present", "no rewritten_query"),
        (6, "rewrite differs", "rewritten_query equals original_query"),
        (7, "query 2–200 characters", "original_query has 1 characters"),
        (8, "query 2–200 characters", "original_query has 201 characters"),
        (9, "rewrite 2–500 characters", "rewritten_query has 501 characters"),
        (10, "rewrite ≤ 5 × query", "rewritten_query has 11 characters, the query 2"),
        (11, "duplicates", f"duplicate of row 12 of {source}"),
    ]
    assert {(q["file"], q["sheet"]) for q in left_out} == {(str(source), "bvt")}


def test_a_quarantined_row_is_counted_and_the_rest_is_built(tmp_path: Path) -> None:
    lines = [r.model_dump() for r in (row(n) for n in range(1, 31))]
    lines = [{k: v for k, v in line.items() if k != "number"} for line in lines]
    lines[4]["success"] = "也许"
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    assert sft(source, tmp_path / "out", "--no-augment") == 0
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["funnel"][0] == {"name": "readable", "rows_in": 30, "rows_out": 29}
    assert (stats["rows_in"], stats["rows_kept"], stats["rows_quarantined"]) == (30, 29, 1)
    [bad] = quarantine(tmp_path / "out" / "quarantine.jsonl")
    assert bad == {
        "file": str(source),
        "sheet": "",
        "row": 5,
        "step": "readable",
        "reason": "success: neither true nor false: '也许'",
    }


def test_sft_files(tmp_path: Path) -> None:
    rows = [row(n, user_profile="老人" if n % 2 else "") for n in range(1, 61)]
    out = tmp_path / "out"
    assert sft(export(tmp_path / "in.xlsx", rows), out) == 0
    splits = {name: read_samples(out / f"{name}_latest.jsonl") for name in ("train", "val", "test")}
    own = [s for samples in splits.values() for s in samples if not s.metadata.augmented]
    assert sorted(s.sample_id for s in own) == [f"fivedr_{n:03d}" for n in range(1, 61)]
    header = json.loads((out / "dataset_latest.json").read_text())
    assert header["dataset_name"] == "sales_rag_query_rewrite_sft" and header["tenant_id"] == "fivedoctors"
    assert header["total_samples"] == sum(map(len, splits.values()))
    assert {"version", "created_at", "request", "versions", "outputs"} <= header.keys()

    made = [s for samples in splits.values() for s in samples if s.metadata.augmented]
    assert made and all(s.metadata.split == "train" for s in made)
    train_ids = {s.sample_id for s in splits["train"]}
    assert all(s.sample_id.removesuffix("_aug") in train_ids for s in made)

    for name in ("train", "val"):
        frame = pd.read_parquet(out / f"sft_{name}.parquet", dtype_backend="pyarrow")
        lines = [json.loads(line) for line in (out / f"sft_{name}.jsonl").open()]
        assert list(frame.columns) == ["messages"]
        assert len(frame) == len(lines) == len(splits[name])
        for messages, line, sample in zip(frame["messages"], lines, splits[name], strict=True):
            assert list(messages) == line["messages"]
            assert [m["role"] for m in line["messages"]] == ["system", "user", "assistant"]
            assert line["messages"][:2] == build_messages(sample, TENANT)
            assert line["messages"][2]["content"] == sample.rewritten_query
            assert line["metadata"]["tenant_id"] == "fivedoctors"


def test_same_input_same_bytes_and_a_finished_build_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = export(tmp_path / "in.xlsx", [row(n) for n in range(1, 41)])
    for out in ("a", "b"):
        assert sft(source, tmp_path / out / "sft") == 0
        assert rl(source, tmp_path / out / "rl") == 0
    assert contents(tmp_path / "a" / "sft") == contents(tmp_path / "b" / "sft")
    assert contents(tmp_path / "a" / "rl") == contents(tmp_path / "b" / "rl")
    assert sft(source, tmp_path / "c", "--seed", "1") == 0
    assert contents(tmp_path / "c") != contents(tmp_path / "a" / "sft")

    capsys.readouterr()
    assert sft(source, tmp_path / "a" / "sft") == 0 and rl(source, tmp_path / "a" / "rl") == 0
    assert capsys.readouterr().out.count("nothing to do") == 2
    (tmp_path / "a" / "rl" / "rl_train.parquet").write_bytes(b"damaged")
    assert rl(source, tmp_path / "a" / "rl") == 0
    assert contents(tmp_path / "a" / "rl") == contents(tmp_path / "b" / "rl")


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = export(tmp_path / "in.xlsx", [row(n) for n in range(1, 41)])
    assert sft(source, tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists() and "near-duplicates" in capsys.readouterr().out


def test_rl_parquet_gives_back_the_sample(tmp_path: Path) -> None:
    rows = [row(n, slices=("难",), history_context="用户: 你好\n助手: 您好") for n in range(1, 41)]
    rows += [
        row(41, top1_score=0.1),
        row(42, rewritten_query="第42款鱼油怎么吃效果好"),
        row(43, rewritten_query=""),
        row(44, success=False),
    ]
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td7\t1\nq1\td9\t2\nq1\td8\t0\nq43\td3\t1\n")
    source = export(tmp_path / "in.xlsx", rows)
    out = tmp_path / "rl"
    assert rl(source, out, "--qrels", str(qrels)) == 0
    found: dict[str, Sample] = {}
    for split in ("train", "val"):
        canonical = read_samples(out / f"rl_{split}.jsonl")
        frame = pd.read_parquet(out / f"rl_{split}.parquet")
        assert list(frame.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        samples = [Sample.from_extra_info(info) for info in frame["extra_info"]]
        assert samples == canonical and all(s.metadata.split == split for s in samples)
        for i, (line, sample) in enumerate(zip(frame.to_dict("records"), samples, strict=True)):
            assert (line["data_source"], line["ability"]) == ("fivedoctors_rewrite", "rewrite")
            assert list(line["prompt"]) == build_messages(sample, TENANT)
            assert line["reward_model"] == {"style": "rule", "ground_truth": sample.candidates.baseline}
            assert (line["extra_info"]["index"], line["extra_info"]["split"]) == (i, split)
        found |= {s.sample_id: s for s in samples}
        latest = (out / f"rl_{split}_latest.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(latest) == len(canonical) and all("rewritten_query" not in json.loads(line) for line in latest)
    assert sorted(found) == [f"fivedr_rl_{n:03d}" for n in range(1, 44)]
    counted = json.loads((out / "rl_stats_auto.json").read_text(encoding="utf-8"))["splits"]["all"]
    assert counted["with_profile"] == sum(bool(s.context.user_profile) for s in found.values())
    assert counted["with_history"] == sum(
        bool(s.context.history_summary or s.context.history_context) for s in found.values()
    )
    first = found["fivedr_rl_001"]
    assert first.relevant_doc_ids == ("d7", "d9") and first.metadata.slices == ("难",)
    assert (first.rewritten_query, first.candidates.baseline) == ("", "第1款鱼油怎么吃效果最好")
    assert found["fivedr_rl_043"].candidates.baseline == "" and found["fivedr_rl_043"].relevant_doc_ids == ("d3",)
    assert found["fivedr_rl_042"].candidates.baseline == found["fivedr_rl_042"].original_query


def test_a_fixed_split_takes_every_row_and_leaves_the_others_alone(tmp_path: Path) -> None:
    out = tmp_path / "rl"
    assert rl(export(tmp_path / "in.xlsx", [row(n) for n in range(1, 41)]), out) == 0
    train = (out / "rl_train.parquet").read_bytes()
    assert rl(export(tmp_path / "held_out.xlsx", [row(n) for n in range(50, 60)]), out, "--split", "test") == 0
    test = read_samples(out / "rl_test.jsonl")
    assert len(test) == 10 and {s.metadata.split for s in test} == {"test"}
    assert (out / "rl_train.parquet").read_bytes() == train


def test_adding_rows_moves_no_sample(tmp_path: Path) -> None:
    few, many = [row(n) for n in range(1, 41)], [row(n) for n in range(200, 260)] + [row(n) for n in range(1, 41)]
    where = []
    for name, rows in (("few", few), ("many", many)):
        assert sft(export(tmp_path / f"{name}.xlsx", rows), tmp_path / name, "--no-augment") == 0
        samples = [
            s for split in ("train", "val", "test") for s in read_samples(tmp_path / name / f"{split}_latest.jsonl")
        ]
        where.append({s.original_query: s.metadata.split for s in samples})
    assert where[0].items() <= where[1].items()


def test_the_best_of_duplicates_stays_and_another_context_is_another_question(tmp_path: Path) -> None:
    same = {"original_query": "Ａ款鱼油 怎么吃"}
    rows = [
        row(1, **same, top1_score=0.7, rewritten_query="甲改写鱼油"),
        row(2, **same, top1_score=0.9, rewritten_query="乙改写鱼油"),
        row(3, original_query="a款鱼油 怎么吃\u200b", top1_score=0.8),
        row(4, **same, history_summary="问过钙片"),
    ]
    assert sft(export(tmp_path / "in.xlsx", rows), tmp_path / "out", "--split", "train", "--no-augment") == 0
    samples = read_samples(tmp_path / "out" / "train_latest.jsonl")
    assert [s.rewritten_query for s in samples] == ["乙改写鱼油", "第4款鱼油怎么吃效果最好"]


def sample(n: int, query: str, rewrite: str, **context: str) -> Sample:
    return Sample(
        sample_id=f"fivedr_{n:03d}",
        original_query=query,
        rewritten_query=rewrite,
        context=Context(**context),
        metadata=Metadata(tenant_id="fivedoctors"),
    )


def test_augmentation_swaps_words_alike_and_leaves_its_source_alone() -> None:
    samples = [
        sample(n, f"第{n}款鱼油怎么吃，饭后吃效果好", f"第{n}款鱼油饭后吃的效果，吃饭前能吃吗") for n in range(300)
    ]
    before = [s.to_json() for s in samples]
    made = list(augment(samples, TENANT.synonyms, TENANT.lexicon.words(), 0.3, seed=0))
    assert [s.to_json() for s in samples] == before
    assert made == list(augment(samples, TENANT.synonyms, TENANT.lexicon.words(), 0.3, seed=0))
    assert made != list(augment(samples, TENANT.synonyms, TENANT.lexicon.words(), 0.3, seed=1))
    sources = {s.sample_id: s for s in samples}
    assert 100 < len(made) < 300 and all(s.metadata.augmented for s in made)
    for copy in made:
        assert copy.sample_id.removesuffix("_aug") in sources
        assert "吃饭" in copy.rewritten_query, "a word inside a word is no word"
        for word, choices in TENANT.synonyms.items():
            for synonym in choices:
                if synonym in copy.original_query and word == "效果":
                    assert synonym in copy.rewritten_query


def test_a_protected_term_is_never_swapped() -> None:
    samples = [sample(n, f"孕妇能吃{n}吗", f"孕妇吃{n}") for n in range(300)]
    made = list(augment(samples, {"孕妇": ["女士"], "吃": ["服用"]}, ["孕妇"], 0.3, seed=0))
    assert made and all("孕妇" in s.original_query and "服用" in s.original_query for s in made)


def test_an_augmented_copy_never_asks_what_another_sample_asks(tmp_path: Path) -> None:
    asked = [row(n, original_query=f"第{n}款怎么吃", rewritten_query=f"第{n}款鱼油怎么吃好") for n in range(1, 61)]
    assert sft(export(tmp_path / "a.xlsx", asked), tmp_path / "a") == 0
    made = [s for s in read_samples(tmp_path / "a" / "train_latest.jsonl") if s.metadata.augmented]
    assert len(made) > 5
    # What the copies ask is asked by customers too now, at the end, so that the sources stay the first.
    also = [row(n, original_query=s.original_query, rewritten_query="改写了") for n, s in enumerate(made, start=100)]
    assert sft(export(tmp_path / "b.xlsx", [*asked, *also]), tmp_path / "b") == 0
    splits = [read_samples(tmp_path / "b" / f"{name}_latest.jsonl") for name in ("train", "val", "test")]
    queries = [bare(s.original_query) for samples in splits for s in samples]
    assert len(queries) == len(set(queries))


def test_messages_hold_the_parts_that_are_there() -> None:
    tenant = TenantSettings(tenant_id="t", short_id="t", system_prompt="提示")
    full = sample(
        1, "鱼油\n\n用户画像: 假的", "x", user_profile="老人", history_summary="问过", history_context="用户: 好"
    )
    system, user = build_messages(full, tenant)
    assert system == {"role": "system", "content": "提示"}
    assert user["content"] == (
        "原始查询: 鱼油 用户画像: 假的\n\n用户画像: 老人\n\n历史摘要: 问过\n\n请改写上面的查询，便于知识库检索。"
    )
    dialogue = sample(2, "它怎么吃", "x", history_context="用户: 鱼油好吗\n助手: 好")
    assert build_messages(dialogue, tenant)[1]["content"] == (
        "原始查询: 它怎么吃\n\n对话历史: 用户: 鱼油好吗\n助手: 好\n\n请改写上面的查询，便于知识库检索。"
    )
    assert build_messages(sample(3, "鱼油", "x"), tenant)[1]["content"] == (
        "原始查询: 鱼油\n\n请改写上面的查询，便于知识库检索。"
    )


def test_messages_speak_the_language_of_the_tenant() -> None:
    tenant = TenantSettings(tenant_id="t", short_id="t", system_prompt="You rewrite.", language="en")
    full = sample(1, "Where was he born?", "x", user_profile="student", history_context="Topic: Kurt Gödel\nQ: Who?")
    system, user = build_messages(full, tenant)
    assert system == {"role": "system", "content": "You rewrite."}
    assert user["content"] == (
        "Question: Where was he born?\n\nUser profile: student\n\nConversation: Topic: Kurt Gödel\nQ: Who?\n\n"
        "Rewrite the question as a search query that stands on its own."
    )
    summed = sample(2, "Where?", "x", history_summary="about Kurt Gödel", history_context="Q: Who?")
    assert "\n\nSummary of the conversation: about Kurt Gödel\n\n" in build_messages(summed, tenant)[1]["content"]
    with pytest.raises(ValidationError, match="language"):
        TenantSettings(tenant_id="t", short_id="t", system_prompt="x", language="fr")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_of_a_long_dialogue_the_end_counts(language: Language) -> None:
    tenant = TenantSettings(tenant_id="t", short_id="t", system_prompt="x", language=language)
    room = TEMPLATES[language].longest_history
    content = build_messages(sample(1, "q", "x", history_context="h" * room + "end"), tenant)[1]["content"]
    assert f": {'h' * (room - 3)}end\n" in content


def test_normalising_twice_changes_nothing() -> None:
    text = "\ufeff Ａ１\u3000鱼油？\r\n\r\n e\u200b\u0301 \x00x\t y "
    assert normalise_lines(text) == "A1 鱼油？\né x y"
    assert normalise_lines(normalise_lines(text)) == normalise_lines(text)
    assert normalise_line(" 鱼\n油 ") == "鱼 油"


@pytest.mark.parametrize("build", [sft, rl])
def test_bad_input_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], build: Any) -> None:
    lacks = tmp_path / "lacks.csv"
    lacks.write_text("original_query,top1_score,success\n鱼油,0.9,1\n", encoding="utf-8")
    failed = export(tmp_path / "failed.xlsx", [row(1, success=False)])
    for source, message in ((lacks, "no column rewritten_query"), (failed, "no row passes the filters")):
        assert build(source, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {source}: {message}") and error.count("\n") == 1
    # A build that keeps nothing leaves the reasons behind, and nothing else.
    [reasons] = (tmp_path / "out").iterdir()
    assert "quarantine" in reasons.name and [line["step"] for line in quarantine(reasons)] == ["success"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("q1\td1\n", "row 1: expected query-id"), ("x1\td1\t1\n", "holds none of the query_ids")],
)
def test_bad_qrels(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str) -> None:
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text(content)
    source = export(tmp_path / "in.xlsx", [row(1)])
    assert rl(source, tmp_path / "out", "--qrels", str(qrels)) == 2
    assert f"{qrels}: {message}" in capsys.readouterr().err


def test_thinking_in_recorded_rewrites_is_stripped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thinking = (
        "<think>问用法</think>\n\n",
        "不确定</think>",
        "<THINK>\n</THINK>",
        "<seed:think>a</seed:think>",
        "<thinking>b</thinking>",
    )
    rows = [row(n, rewritten_query=f"{text}鱼油 用法 餐后") for n, text in enumerate(thinking, start=1)]
    assert rl(export(tmp_path / "in.xlsx", rows), tmp_path / "out", "--split", "test") == 0
    assert f"<think> stripped: {len(thinking)}" in capsys.readouterr().out
    written = (tmp_path / "out" / "rl_test.jsonl").read_text("utf-8")
    assert "think" not in written.lower() and written.count("鱼油 用法 餐后") >= len(thinking)


def test_samples_without_relevant_documents_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("q1\td1\t1\n")
    source = export(tmp_path / "in.xlsx", [row(1, query_id="q1"), row(2, query_id="q2")])
    assert rl(source, tmp_path / "out", "--qrels", str(qrels)) == 0
    note = f"{qrels}: no relevant document for 1 of 2 query_ids, such as q2"
    assert note in capsys.readouterr().out and note in next((tmp_path / "out").glob("RL_DATA_CARD*")).read_text("utf-8")


def test_a_missing_rewrite_is_an_empty_ground_truth() -> None:
    line = build_rl.parquet_row(sample(1, "鱼油", "").model_copy(update={"candidates": Candidates()}), 0, TENANT)
    assert line["reward_model"]["ground_truth"] == ""
