"""The training data of query expansion: what is held out is imitated by nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from examples.prepare_expansion import main


def test_recorded_expansions_of_held_out_queries_are_left_out(tmp_path: Path, capsys) -> None:
    queries = {f"q{n}": f"query number {n}" for n in range(60)}
    beir, recorded, out = tmp_path / "beir", tmp_path / "recorded.jsonl", tmp_path / "out"
    beir.mkdir()
    rows = [json.dumps({"_id": name, "text": text}) for name, text in queries.items()]
    (beir / "queries.jsonl").write_text("\n".join(rows))
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{name}\td1\t1\n" for name in queries))
    lines = [json.dumps({"query": text, "output": [["lex", text], ["vec", text]]}) for text in queries.values()]
    recorded.write_text("\n".join(lines))
    assert main(["--beir", str(beir), "--tenant", "t", "--out", str(out), "--expansions", str(recorded)]) == 0
    counts = json.loads(capsys.readouterr().out)
    held_out = {json.loads(line)["original_query"] for line in (out / "test.jsonl").read_text().splitlines()}
    assert 0 < counts["test"] == len(held_out) and counts["to imitate"] == len(queries) - len(held_out)
    imitated = [row for split in ("train", "val") for row in pq.read_table(out / f"sft_{split}.parquet").to_pylist()]
    assert len(imitated) == counts["to imitate"]
    assert not any(text == row["messages"][-1]["content"].split("vec: ")[1] for row in imitated for text in held_out)


def test_recorded_rewrites_become_lex_lines_of_the_sets_own_training_queries(tmp_path: Path, capsys) -> None:
    beir, recorded, out = tmp_path / "beir", tmp_path / "rewrites.jsonl", tmp_path / "out"
    beir.mkdir()
    rows = [("a", "葡萄籽会化吗", "train"), ("b", "鱼油怎么吃", "train"), ("c", "钙片怎么吃", "heldout")]
    queries = [json.dumps({"_id": name, "text": text, "split": split}) for name, text, split in rows]
    (beir / "queries.jsonl").write_text("\n".join(queries))
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{name}\td1\t1\n" for name, *_ in rows))
    texts = [text for _, text, _ in rows] + ["谁需要吃这款"]  # the last one needs its conversation
    recorded.write_text("\n".join(json.dumps({"query": text, "rewritten_query": text + "。"}) for text in texts))
    assert main(["--beir", str(beir), "--tenant", "t", "--out", str(out), "--rewrites", str(recorded)]) == 0
    assert json.loads(capsys.readouterr().out) == {"train": 2, "val": 0, "test": 1, "to imitate": 2}
    imitated = [row for split in ("train", "val") for row in pq.read_table(out / f"sft_{split}.parquet").to_pylist()]
    answers = {row["messages"][-1]["content"].rpartition("</think>")[2].strip() for row in imitated}
    assert answers == {f"lex: {text}。\nvec: {text}" for text in texts[:2]}


def test_a_recorded_row_of_another_shape_is_named(tmp_path: Path, capsys) -> None:
    beir, recorded = tmp_path / "beir", tmp_path / "recorded.jsonl"
    beir.mkdir()
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "鱼油怎么吃", "split": "train"}))
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    for option, row in (("--expansions", {"query": "鱼油怎么吃"}), ("--rewrites", {"query": "鱼油怎么吃"})):
        recorded.write_text(json.dumps(row))
        assert main(["--beir", str(beir), "--tenant", "t", "--out", str(tmp_path / "o"), option, str(recorded)]) == 2
        assert f"{recorded}: row 1: " in capsys.readouterr().err
