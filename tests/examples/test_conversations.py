"""The second story: conversations become its inputs, a model's folder is brought once, and mistakes are said early."""

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from examples.get_small_model import BUNDLED, licence_of, name_special_tokens
from examples.get_small_model import main as get_small_model
from examples.make_tiny_model import make_tokenizer
from examples.prepare_conversations import history_of, main
from reward.records.outcome import GateReason
from reward.records.sample import Context, Metadata, Sample
from reward.rewrite.gates import check_gates
from reward.settings.recipe import load_tenant
from tests.support.commands import run_command


def conversation(number: int, **fields: object) -> dict[str, object]:
    return {
        "_id": f"q{number}",
        "text": "Where was  he born?",
        "history": ["Who was he?", "word " * 40, "When?", "In 1906.", "Why?", "Nobody knows."],
        "title": f"Person {number}",
        "section": "Life",
        "rewrite": f"Where was Person {number} born?",
        **fields,
    }


def write_set(folder: Path, queries: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    judged = [f"{query.get('_id')}\td\t1" for query in queries if query.get("_id") != "unjudged"]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), encoding="utf-8")
    return folder


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_conversations_become_questions_rewrites_and_a_heuristic(tmp_path):
    queries = [conversation(n, split="dev" if n % 3 else "train") for n in range(9)]
    queries += [conversation(9, _id="unjudged", split="train"), conversation(10, history=[], split="train")]
    out = tmp_path / "out"
    assert main(["--set", str(write_set(tmp_path / "set", queries)), "--out", str(out)]) == 0
    train, held_out = rows_of(out / "queries_train.jsonl"), rows_of(out / "queries_heldout.jsonl")
    assert [row["query_id"] for row in train] == ["q0", "q3", "q6", "q10"] and len(held_out) == 6
    assert train[0]["query"] == "Where was he born?" and train[0]["slices"] == ["follow_up"]
    assert train[0]["history_context"] == "Topic: Person 0 - Life\nQ: When?\nA: In 1906.\nQ: Why?\nA: Nobody knows."
    assert train[3]["history_context"] == "Topic: Person 10 - Life" and train[3]["slices"] == ["first_turn"]
    recorded = {row["query_id"]: row["rewritten_query"] for row in rows_of(out / "baseline_rewrites.jsonl")}
    titled = {row["query_id"]: row["rewritten_query"] for row in rows_of(out / "question_and_title.jsonl")}
    assert recorded["q4"] == "Where was Person 4 born?" and titled["q4"] == "Where was he born? Person 4"


def test_without_a_split_an_article_is_on_one_side(tmp_path):
    queries = [conversation(n, title=f"Person {n % 20}") for n in range(100)]
    out = tmp_path / "out"
    assert main(["--set", str(write_set(tmp_path / "set", queries)), "--out", str(out)]) == 0
    sides = [
        {row["history_context"].split("\n")[0] for row in rows_of(out / f"queries_{side}.jsonl")}
        for side in ("train", "heldout")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_long_answers_are_cut_and_questions_are_not():
    long = "word " * 40
    lines = history_of({"history": [long, long]}).split("\n")
    assert lines == [f"Q: {long.strip()}", f"A: {'word ' * 24}word"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rewrite": ""}, ["row 1", "rewrite"]),
        ({"rewrite": None}, ["row 1", "rewrite"]),
        ({"text": " "}, ["row 1", "text"]),
        ({"history": "Who?"}, ["row 1", "history"]),
        ({"history": ["Who?"]}, ["row 1", "history"]),
        ({"history": ["Who?", None]}, ["row 1", "history"]),
        ({"_id": "unjudged"}, ["no query"]),
        ({"split": "train"}, ["0 of 1", "held out"]),
    ],
)
def test_a_bad_set_is_named_in_one_line(tmp_path, capsys, fields, words):
    folder = write_set(tmp_path / "set", [conversation(0, **fields)])
    assert main(["--set", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and all(word in error for word in words)


def test_the_english_tenant_guards_people_numbers_and_negations():
    tenant = load_tenant("conversations")
    assert tenant.language == "en"
    context = Context(history_context="Topic: Ann - Life\nQ: Was her mother a poet?\nA: Yes, from 1906.")

    def gate(query: str, rewrite: str) -> str | None:
        sample = Sample(sample_id="s", original_query=query, context=context, metadata=Metadata(tenant_id="t"))
        gated = check_gates(sample, rewrite, gates=GateReason, cap=200, lexicon=tenant.lexicon, floor=-1)
        return gated.reason if gated else None

    assert gate("Where did her mom live?", "Where did Ann's mother live?") is None
    assert gate("Where did her mother live?", "Where did Ann live?") == "protected_term_dropped"
    assert gate("Where did she live?", "Where did Ann's husband live?") == "protected_term_invented"
    assert gate("What happened in 1906?", "What happened to Ann?") == "number_dropped"
    assert gate("What happened then?", "What happened to Ann in 1907?") == "number_invented"
    assert gate("Why did she not publish it?", "Why did Ann publish it?") == "negation_dropped"


def test_a_model_folder_is_brought_once(tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    assert get_small_model(["--out", str(folder)]) == 2 and "not made by this command" in capsys.readouterr().err
    (folder / "provenance.json").write_text(json.dumps({"source": BUNDLED}), encoding="utf-8")
    assert get_small_model(["--out", str(folder)]) == 0
    assert get_small_model(["--out", str(folder), "--hub", "a/b"]) == 2 and "choose another" in capsys.readouterr().err


def test_a_model_names_its_licence_and_its_tokens(tmp_path):
    card = tmp_path / "README.md"
    assert licence_of(card) == "unknown"
    card.write_text("---\nlicense: apache-2.0\n---\nA model.", encoding="utf-8")
    assert licence_of(card) == "apache-2.0"
    card.write_text("A model.", encoding="utf-8")
    assert licence_of(card) == "unknown"
    tokenizer = make_tokenizer(["abc"], [])
    tokenizer.eos_token = "<|im_start|>"
    name_special_tokens(tokenizer, LlamaConfig(bos_token_id=1, eos_token_id=2))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--set DIR is missing"),
        (["--set"], "--set needs a value"),
        (["--set", "/nowhere"], "no corpus.jsonl there"),
        (["--set", "/nowhere", "--algorithm", "ppo"], "grpo or rloo"),
        (["--set", "/nowhere", "--steps", "many"], "many is no number of steps"),
        (["--set", "/nowhere", "--sft-steps", "0"], "0 is no number of steps"),
        (["--nonsense"], "unknown option"),
    ],
)
def test_the_story_says_no_before_it_starts(arguments, words):
    result = run_command("bash", "examples/conversations.sh", *arguments)
    assert result.returncode == 2 and words in result.stderr and len(result.stderr.strip().splitlines()) == 1
