"""data_prep.expansion_data: what each tool keeps, mends, counts and refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep.expansion_data import main
from data_prep.expansions.cleaning import clean
from data_prep.expansions.examples import Example
from data_prep.expansions.short_queries import short_query
from reward.expansion.parser import parse
from reward.expansion.prompt import build_messages
from reward.expansion.rules import score
from reward.records.sample import Sample

CACHE = [["lex", "redis caching nodejs"], ["vec", "how to cache responses with redis in a node service"]]
FISH_OIL = [["lex", "鱼油 服用时间"], ["vec", "吃鱼油应该在用餐之前还是之后"]]


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def example(query: str, *lines: tuple[str, str], **more: Any) -> Example:
    return Example.model_validate({"query": query, "output": lines, **more})


BAD = {
    "no query": ({"output": CACHE}, "query: Field required"),
    "empty query": ({"query": " ", "output": CACHE}, "query: String should have at least 1 character"),
    "query is a number": ({"query": 5, "output": CACHE}, "query: Input should be a valid string"),
    "no lines": ({"query": "a", "output": []}, "output: missing or empty"),
    "nothing but a query": ({"query": "a"}, "output: missing or empty"),
    "null": ({"query": "a", "output": None}, "output: Input should be a valid tuple"),
    "unknown kind": ({"query": "a", "output": [["sql", "x"]]}, "output.0.0: Input should be 'lex', 'vec' or 'hyde'"),
    "empty line": (
        {"query": "a", "output": [["lex", "\u3000"]]},
        "output.0.1: String should have at least 1 character",
    ),
    "line break": ({"query": "a", "output": [["hyde", "x\u2028y"]]}, "output.0.1: Value error, holds a line break"),
    "three parts": ({"query": "a", "output": [["lex", "x", "y"]]}, "output.0: Tuple should have at most 2 items"),
    "a text": ({"query": "a", "output": "lex: x"}, "output: Input should be a valid tuple"),
    "text of a model": ({"query": "a", "expansion": "lex: x\nSure!"}, "expansion has a line without kind or text"),
    "template": ({"query": "a", "expansion": "lex: x<|im_end|>"}, "expansion holds a piece of a chat template"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_is_no_example_is_named(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, problem = BAD[case]
    file = write(tmp_path / "data.jsonl", {"query": "redis cache", "output": CACHE}, "", row)
    assert main(["validate", str(file)]) == 1
    told = capsys.readouterr().out
    assert f"{file}: row 3: {problem}" in told and "rows 2 = examples 1 + no examples 1" in told
    assert main(["score", str(file)]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith(f"error: {file}: row 3: {problem}") and refused.count("\n") == 1
    out = tmp_path / "clean.jsonl"
    assert main(["clean", str(file), "--out", str(out)]) == 0
    assert [row["query"] for row in read(out)] == ["redis cache"]
    [left_out] = read(tmp_path / "clean.jsonl.quarantine.jsonl")
    assert left_out["row"] == 3 and left_out["reason"].startswith(problem)


def test_validate_counts_what_leaves_the_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyde = ["hyde", "Redis stores responses under a key with a time to live."]
    rows = [
        {"query": "redis cache", "output": [*CACHE, hyde, hyde]},
        {"query": "redis cache", "output": [["lex", f"redis {n}"] for n in range(200)]},
        {"query": "redis cache", "expansion": "lex: redis node\nvec: caching with redis"},
    ]
    assert main(["validate", str(write(tmp_path / "data.jsonl", *rows))]) == 0
    told = capsys.readouterr().out
    for line in ("examples 3", "more than 1 hyde: 1", "more than 3 lex: 1", "no vec: 1"):
        assert line in told


def test_analyse_finds_repeats_and_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topics = ["gardening", "yoga", "chess", "baking", "sailing"]
    rows = [{"query": topic, "output": [["lex", f"{topic} guide"], ["vec", f"learn {topic}"]]} for topic in topics]
    rows += [{"query": "Yoga!", "output": CACHE, "category": "sports"}, {"query": "鱼油怎么吃", "output": FISH_OIL}]
    out = tmp_path / "analysis.json"
    assert main(["analyse", str(write(tmp_path / "data.jsonl", *rows)), "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == found
    assert (found["examples"], found["distinct_queries"], found["repeated_queries"]) == (7, 6, 1)
    assert found["languages"] == {"en": 6, "zh": 1} and found["categories"] == {"": 6, "sports": 1}
    assert found["templates"] == {"lex: … guide": 5, "vec: learn …": 5} and found["templated_lines"] == 10
    assert found["lines"]["hyde"] == dict.fromkeys(found["lines"]["hyde"], 0)


@pytest.mark.parametrize("preset", ["rules-v1", "rules-v2"])
def test_score_is_that_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str) -> None:
    rows = [{"id": "a", "query": "redis cache node", "output": CACHE}, {"query": "鱼油饭前吃吗", "output": FISH_OIL}]
    out = tmp_path / "scored.jsonl"
    assert main(["score", str(write(tmp_path / "d.jsonl", *rows)), "--preset", preset, "--out", str(out)]) == 0
    scored = read(out)
    for row, one in zip(rows, scored, strict=True):
        text = "\n".join(f"{kind}: {said}" for kind, said in row["output"])
        expected = score(str(row["query"]), parse(text), preset)  # type: ignore[arg-type]
        assert one["score"] == round(expected.total, 6) and one["rating"] == expected.rating
        assert one["deductions"] == list(expected.deductions) and one["expansion"] == text
    assert capsys.readouterr().out.startswith(f'{preset}: {{"count": 2, "valid": 1.0, "mean": ')


MISREAD = {
    "en": ("react hooks useEffect cleanup", "fishing hooks cleaning", "react useEffect cleanup function"),
    "rust": ("rust ownership rules", "remove rust corrosion from metal", "rust borrow checker ownership"),
    "python": ("Python decorators", "python snake habitat", "python decorator syntax"),
    "zh": ("java 线程池 参数", "爪哇岛 旅游", "java 线程池 核心线程数"),
    "apple": ("苹果手机恢复出厂设置", "苹果削皮机", "苹果手机 还原设置"),
    "cookie": ("http cookie samesite", "chocolate chip cookie recipe", "samesite cookie header"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_lines_that_misread_a_technical_term_are_dropped(case: str) -> None:
    query, wrong, right = MISREAD[case]
    cleaned = clean([example(query, ("lex", wrong), ("lex", right), ("vec", f"{right} {query}"))])
    assert [text for _, text in cleaned.examples[0].output] == [right, f"{right} {query}"]
    assert sum(cleaned.counts.values()) == 1
    cleaned = clean([example(query, ("lex", wrong), ("vec", right))])
    assert not cleaned.examples and cleaned.left_out[0][1] == "every lex line is misread"


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("python snake habitat", "python reptile habitat"),
        ("rust removal from iron", "remove rust corrosion"),
        ("react", "chemical reagent"),
        ("how to go to the island", "travel trip island"),
        ("chocolate cookie recipe", "cookie dough baking"),
        ("吃苹果的好处", "苹果 水果 营养"),
        ("docker container shipping costs", "shipping container freight"),
    ],
)
def test_an_ordinary_sense_that_the_query_means_stays(query: str, line: str) -> None:
    given = example(query, ("lex", line), ("vec", f"what to know of {line}"))
    cleaned = clean([given])
    assert cleaned.examples == [given] and not cleaned.counts


@pytest.mark.parametrize(
    ("query", "written", "mended"),
    [
        ("C++ templates", "c plus plus template syntax", "C++ template syntax"),
        ("C# async", "csharp async await", "C# async await"),
        ("deploy .NET app", "dotnet publish command", ".NET publish command"),
        ("Node.js 内存泄漏", "node js 内存 泄漏", "Node.js 内存 泄漏"),
        ("setting up CI/CD", "ci cd pipeline yaml", "CI/CD pipeline yaml"),
        ("C++ vector", "C++ vector cplusplus", "C++ vector cplusplus"),
        ("learn c", "c plus plus compiler", "c plus plus compiler"),
    ],
)
def test_miswritten_terms_are_mended(query: str, written: str, mended: str) -> None:
    cleaned = clean([example(query, ("lex", written), ("vec", "how is it done"))])
    assert cleaned.examples[0].output[0] == ("lex", mended)


def test_clean_masks_personal_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [["lex", "鱼油 13812345678"], ["vec", "用手机13812345678下的单什么时候发货"]]
    out = tmp_path / "out.jsonl"
    rows = [{"query": "13812345678 的订单", "output": lines}, {"query": "redis cache", "output": CACHE}]
    assert main(["clean", str(write(tmp_path / "d.jsonl", *rows)), "--out", str(out)]) == 0
    assert "13812345678" not in out.read_text(encoding="utf-8") and read(out)[1]["output"] == CACHE
    assert "masked: 3" in capsys.readouterr().out


def test_clean_drops_repeats(tmp_path: Path) -> None:
    rows = [{"query": "redis cache", "output": [*CACHE, CACHE[0]]}, {"query": "Redis Cache", "output": CACHE}]
    out = tmp_path / "out.jsonl"
    assert main(["clean", str(write(tmp_path / "d.jsonl", *rows)), "--out", str(out)]) == 0
    assert [row["output"] for row in read(out)] == [CACHE]
    assert read(tmp_path / "out.jsonl.quarantine.jsonl")[0]["reason"] == "repeats an earlier example"


def test_clean_leaves_out_what_scores_low(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boilerplate = [["lex", "yoga overview guide"], ["vec", "learn yoga step by step"]]
    rows = [{"query": "yoga", "output": boilerplate}, {"query": "redis cache node", "output": CACHE}]
    low, high = (score(str(row["query"]), Example.model_validate(row).expansion).total for row in rows)
    out, data = tmp_path / "out.jsonl", write(tmp_path / "d.jsonl", *rows)
    assert low < high and main(["clean", str(data), "--out", str(out)]) == 0 and len(read(out)) == 2
    least = f"{(low + high) / 2:.3f}"
    assert main(["clean", str(data), "--out", str(out), "--least-score", least]) == 0
    assert [row["query"] for row in read(out)] == ["redis cache node"]
    assert read(tmp_path / "out.jsonl.quarantine.jsonl")[0]["reason"].startswith("scores below 0.")
    capsys.readouterr()
    assert main(["clean", str(data), "--out", str(out), "--least-score", "1.5"]) == 2
    assert "outside [0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "lex", "short"),
    [
        (
            "how to configure AWS Lambda memory",
            ["AWS Lambda memory configuration", "lambda memory limit"],
            "Lambda memory",
        ),
        ("auth config", ["authentication configuration"], ""),
        ("best pasta near Rome", ["italian restaurants"], ""),
        ("鱼油和钙片能不能一起吃", ["鱼油 钙片 同服", "钙片 鱼油 间隔"], "鱼油钙片"),
    ],
)
def test_short_queries_are_key_terms_that_the_lines_hold(query: str, lex: list[str], short: str) -> None:
    assert short_query(example(query, *(("lex", line) for line in lex), ("vec", "x"))) == short


def test_augment_adds_copies_that_are_new_and_serve_their_lines(tmp_path: Path) -> None:
    rows = [
        {"id": f"e{n}", "query": f"how to configure {name} timeout for uploads", "category": "c", "output": [
            ["lex", f"{name} upload timeout setting"], ["lex", f"{name} limit slow uploads"],
            ["vec", f"raising the time that {name} waits for a large upload to finish"],
        ]}
        for n, name in enumerate(("Nginx", "Apache", "Caddy", "HAProxy", "Traefik", "Envoy", "IIS", "Tomcat"))
    ]  # fmt: skip
    out = tmp_path / "out.jsonl"
    data = write(tmp_path / "d.jsonl", *rows, {"query": "nginx timeout", "output": CACHE})
    assert main(["augment", str(data), "--out", str(out), "--share", "1"]) == 0
    copies = [row for row in read(out) if row.get("augmented")]
    assert copies and read(out)[: len(rows)] == rows
    for copy in copies:
        assert len(copy["query"].split()) == 2 and copy["query"].lower() != "nginx timeout" and copy["is_short"]
        assert copy["id"].endswith("_short") and copy["category"] == "c"
    first = out.read_bytes()
    assert main(["augment", str(data), "--out", str(out), "--share", "1"]) == 0 and out.read_bytes() == first
    assert main(["augment", str(data), "--out", str(out), "--share", "2"]) == 2


def test_balance_cuts_what_is_frequent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"tech": 30, "food": 5, "law": 3}
    rows = [
        {"query": f"{name} {n}", "category": name, "output": CACHE} for name, size in sizes.items() for n in range(size)
    ]
    rows += [{"query": f"other {n}", "output": CACHE} for n in range(9)]
    out, data = tmp_path / "out.jsonl", write(tmp_path / "d.jsonl", *rows)
    for options, most in (([], 5), (["--most", "4"], 4)):
        assert main(["balance", str(data), "--out", str(out), *options]) == 0
        kept = Counter(row.get("category") for row in read(out))
        assert kept == {"tech": most, "food": most, "law": 3, None: 9}
        assert f"tech: 30 -> {most}" in capsys.readouterr().out
    assert main(["balance", str(data), "--out", str(out), "--most", "0"]) == 2
    assert main(["balance", str(data), "--out", str(out), "--seed", "1"]) == 0


def test_split_writes_what_the_trainer_reads_and_leaks_nothing(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "query": f"question number {n} about subject {n * 7919}", "output": CACHE, "category": "c"}
        for n in range(120)
    ]
    # Prompts for RL alone, of which passages are known; copies of queries that differ in case and signs.
    rows += [{"query": f"第{n}号查询说的是第{n * 31}件事", "relevant_doc_ids": [f"d{n}"]} for n in range(60)]
    rows += [{"query": f"Question number {n} about subject {n * 7919}?", "output": FISH_OIL} for n in range(120)]
    out = tmp_path / "out"
    assert main(["split", str(write(tmp_path / "d.jsonl", *rows)), "--out", str(out), "--tenant", "shop"]) == 0
    splits = {name: read(out / f"{name}.jsonl") for name in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == len(rows) and all(splits.values())
    place = {name: {row["query"].lower().rstrip("?") for row in some} for name, some in splits.items()}
    assert not place["train"] & place["val"] and not place["train"] & place["test"] and not place["val"] & place["test"]

    for name in ("train", "val"):
        [messages] = pq.read_table(out / f"sft_{name}.parquet").to_pydict().values()
        with_lines = [row for row in splits[name] if "output" in row]
        assert len(messages) == len(with_lines)
        for row, (*prompt, answer) in zip(with_lines, messages, strict=True):
            assert prompt == build_messages(row["query"]) and answer["role"] == "assistant"
            assert answer["content"] == "\n".join(f"{kind}: {text}" for kind, text in row["output"])
        rl = pq.read_table(out / f"rl_{name}.parquet").to_pylist()
        assert len(rl) == len(place[name])
        for row in rl:
            sample = Sample.from_extra_info(row["extra_info"])
            assert row["prompt"] == build_messages(sample.original_query) and row["data_source"] == "shop_expansion"
            assert bool(sample.relevant_doc_ids) == sample.original_query.startswith("第")
            assert sample.metadata.split == name and sample.metadata.tenant_id == "shop"


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, broken = write(tmp_path / "empty.jsonl"), write(tmp_path / "broken.jsonl", "{")
    for file, problem in (
        (tmp_path / "none.jsonl", "no such file"), (empty, "the file is empty"), (broken, "row 1: not JSON"),
    ):  # fmt: skip
        for tool in (["analyse"], ["score"], ["split", "--out", str(tmp_path / "o")]):
            assert main([tool[0], str(file), *tool[1:]]) == 2
            told = capsys.readouterr().err
            assert problem in told and told.count("\n") == 1
    few = write(tmp_path / "few.jsonl", {"query": "redis", "output": CACHE})
    assert main(["split", str(few), "--out", str(tmp_path / "o")]) == 2
    assert "too few queries" in capsys.readouterr().err
