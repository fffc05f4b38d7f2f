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
