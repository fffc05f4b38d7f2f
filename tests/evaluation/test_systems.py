"""Systems that are asked, read or merged: prompted models, earlier comparisons, checkpoints."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.provenance.retriever import describe_retriever
from evaluation.provenance.training_run import TrainingRun
from evaluation.rewriters.model_folder import check_vocabulary
from evaluation.rewriters.prompted_profile import PROMPTED_CONFIGS, load_prompted
from reward.records.files import BadInput, write_atomically
from reward.settings.recorded_run import RecordedServices
from reward.settings.services import RagSettings
from tests.support.loopback_llm import Fault, loopback_llm
from tests.support.rank_service import RankService, read_run, run, sample, write_shop

PRICE = {"currency": "USD", "input": 1.0, "cached_input": 1.0, "output": 10.0}


def profile(path: Path, url: str, **more: Any) -> Path:
    values = {
        "model": "m",
        "base_url": str(url),
        "attempts": 1,
        "timeout": 1,
        "backoff": [0, 0],
        "thinking": False,
        **more,
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def completion(text: str, read: int = 200, written: int = 20) -> Fault:
    """A whole answer with its token counts."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": read, "completion_tokens": written}
    return Fault(body=json.dumps({"choices": [choice], "usage": usage}))


def query_of(body: dict) -> str:
    return body["messages"][1]["content"]


def test_prompted_rewriters_compete_and_are_paid_for_once(tmp_path: Path, tenant: Path, service: RankService) -> None:
    samples = [sample(i, "rank 3") for i in range(4)]
    with loopback_llm(
        lambda body: completion("rank 1" if "改写" in body["messages"][0]["content"] else "rank 2")
    ) as url:
        zero = profile(tmp_path / "zero.yaml", url, price=PRICE)
        hyde = profile(tmp_path / "hyde.yaml", url, price=PRICE, prompt="hyde", model="h")
        write_shop(tenant, system_prompt="你是专家。")
        more = ["--prompted", f"zero_shot={zero}", "--prompted", f"hyde={hyde}", "--max-cost", "1"]
        assert run(tmp_path, tenant, service, samples, *more) == 0
        metrics, rows = read_run(tmp_path)
        assert len(url.requests) == 8
        # The same again, and another comparison with the same ledger: no further call.
        assert run(tmp_path, tenant, service, samples, *more) == 0
        assert len(url.requests) == 8
        body = url.requests[0]
    assert metrics["systems"]["zero_shot"]["success@1"] == 1
    assert rows[0]["systems"]["hyde"]["rewrite"] == "rank 2"
    assert metrics["tokens"]["zero_shot"] == {"input_mean": 200, "output_mean": 20}
    assert abs(metrics["cost_per_1000"]["zero_shot"]["usd"] - 1000 * (200 * 1 + 20 * 10) / 1e6) < 1e-9
    assert metrics["latency_ms"]["zero_shot"]["n"] == 4
    assert metrics["provenance"]["prompted"]["hyde"] == {"model": "h", "prompt": "hyde"}
    assert read_run(tmp_path)[0]["cost_per_1000"] == metrics["cost_per_1000"]
    # The query and its context are the user message, without the trained models' instruction.
    assert body["chat_template_kwargs"] == {"enable_thinking": False} and "response_format" not in body
    assert query_of(body).startswith("原始查询: 钙片") and query_of(body).endswith("用户画像: 四十岁")


def test_nothing_is_asked_without_consent(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    samples = [sample(i, "rank 3") for i in range(3)]
    with loopback_llm(lambda body: completion("rank 1")) as url:
        more = ["--prompted", f"zero_shot={profile(tmp_path / 'zero.yaml', url, price=PRICE)}"]
        assert run(tmp_path, tenant, service, samples, *more) == 2
        assert "nothing was asked" in capsys.readouterr().err
        assert run(tmp_path, tenant, service, samples, *more, "--max-cost", "0.00001") == 2
        assert "nothing was asked" in capsys.readouterr().err
        assert not url.requests and not service.bodies
        # A model of one's own has no price: nobody has to consent.
        free = ["--prompted", f"zero_shot={profile(tmp_path / 'zero.yaml', url)}"]
        assert run(tmp_path, tenant, service, samples, *free) == 0
    metrics, _ = read_run(tmp_path)
    assert metrics["cost_per_1000"]["zero_shot"] is None
    assert "zero_shot: cost is not known: its profile names no price" in metrics["provenance"]["missing"]


def test_late_empty_and_odd_answers_are_counted(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """Late, empty, refused by the server: no rewrite, and the sample leaves for all. Markup and another language are
    rewrites, and named."""
    answers = {
        "late": Fault(delay=8, text="rank 1"),
        "empty": Fault(text=" "),
        "thought": Fault(text="<think>用户想问"),
        "down": Fault(status=500),
        "markup": Fault(text="```\nrank 1\n```"),
        "english": Fault(text="how should calcium tablets be taken"),
        "considered": Fault(text="<think>想一想</think>\n\n钙片 怎么吃"),
    }
    samples = [sample(i, "rank 3", query=f"钙片怎么吃 {name}") for i, name in enumerate(answers)]

    def answer(body: dict) -> Fault:
        return next(fault for name, fault in answers.items() if name in query_of(body))

    with loopback_llm(answer) as url:
        more = ["--prompted", f"zero_shot={profile(tmp_path / 'zero.yaml', url, timeout=4, attempts=1)}"]
        assert run(tmp_path, tenant, service, samples, *more) == 0
    metrics, rows = read_run(tmp_path)
    by_query = {row["query"].split()[-1]: row for row in rows}
    assert {name for name, row in by_query.items() if row["abstained"]} == {"late", "empty", "thought", "down"}
    assert "Timeout" in by_query["late"]["abstained"] and "empty" in by_query["empty"]["abstained"]
    assert by_query["considered"]["systems"]["zero_shot"]["rewrite"] == "钙片 怎么吃"
    assert by_query["markup"]["systems"]["zero_shot"]["rewrite"].startswith("```")
    assert {summary["n"] for summary in metrics["systems"].values()} == {3}
    assert metrics["gated"]["zero_shot"]["reasons"].keys() == {"unparseable", "language_switch"}
    assert any("4 of 7 samples took no part" in sentence for sentence in metrics["provenance"]["missing"])


def test_a_dead_service_is_given_up(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """Ten failures in a row end the asking; the next run asks for what is missing alone."""
    samples = [sample(i, "rank 3") for i in range(30)]
    asked: Counter[str] = Counter()
    dead = True

    def answer(body: dict) -> Fault:
        asked[query_of(body)] += 1
        return Fault(status=500) if dead and len(asked) > 5 else Fault(text="rank 1")

    with loopback_llm(answer) as url:
        more = ["--prompted", f"zero_shot={profile(tmp_path / 'zero.yaml', url, max_concurrency=1, attempts=1)}"]
        assert run(tmp_path, tenant, service, samples, *more) == 0
        metrics, _ = read_run(tmp_path)
        assert sum(asked.values()) == 15
        assert metrics["systems"]["zero_shot"]["n"] == 5
        assert any("15 rewrites were not asked for" in sentence for sentence in metrics["provenance"]["missing"])
        first = set(list(asked)[:5])
        dead = False
        asked.clear()
        assert run(tmp_path, tenant, service, samples, *more) == 0
    assert not first & set(asked) and sum(asked.values()) == 25
    assert read_run(tmp_path)[0]["systems"]["zero_shot"]["n"] == 30


def test_secrets_are_names_of_variables(
    tmp_path: Path, tenant: Path, service: RankService, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("ZERO_KEY", raising=False)
    with loopback_llm(lambda body: "rank 1") as url:
        more = ["--prompted", f"zero={profile(tmp_path / 'zero.yaml', url, api_key_env='ZERO_KEY')}"]
        assert run(tmp_path, tenant, service, [sample(0, "rank 3")], *more) == 2
        assert "ZERO_KEY" in capsys.readouterr().err and not service.bodies
        monkeypatch.setenv("ZERO_KEY", "sk-secret-1")
        assert run(tmp_path, tenant, service, [sample(0, "rank 3")], *more) == 0
        assert url.headers[0]["authorization"] == "Bearer sk-secret-1"
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert b"sk-secret-1" not in written


def test_a_former_comparison_competes(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    samples = [sample(0, "rank 2"), sample(1, "rank 1"), sample(2, "", query="no baseline")]
    assert run(tmp_path, tenant, service, samples) == 0
    (tmp_path / "run").rename(tmp_path / "old")
    assert run(tmp_path, tenant, service, samples[:2], "--recorded", f"last={tmp_path / 'old'}:baseline") == 0
    metrics, rows = read_run(tmp_path)
    assert metrics["win_rate"]["last_vs_baseline"]["tie"] == 2
    assert [row["systems"]["last"]["rewrite"] for row in rows] == ["rank 2", "rank 1"]
    capsys.readouterr()
    # What failed there is missing here too; another query, sample or system is an error.
    assert run(tmp_path, tenant, service, samples, "--recorded", f"last={tmp_path / 'old'}:baseline") == 0
    cases = [
        ([sample(0, "rank 2", query="另一问")], "baseline", "had another query"),
        ([*samples, sample(9, "rank 2")], "baseline", "compared no sample t_009 (1 of 4 samples)"),
        (samples, "rl", "has no system 'rl' (there are: original, baseline)"),
    ]
    for others, system, message in cases:
        assert run(tmp_path, tenant, service, others, "--recorded", f"last={tmp_path / 'old'}:{system}") == 2
        assert message in capsys.readouterr().err


def model_folder(folder: Path, *, config: int, rows: int, tokens: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"vocab_size": config}))
    (folder / "tokenizer_config.json").write_text("{}")
    vocabulary = {f"t{i}": i for i in range(tokens)}
    added = [{"id": tokens, "content": "<image>"}]  # nothing that a text model is ever given
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "BF16", "shape": [rows, 8], "data_offsets": [0, 0]}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    return folder


def test_a_checkpoint_of_another_vocabulary_is_one_error(
    tmp_path: Path, tenant: Path, service: RankService, capsys
) -> None:
    check_vocabulary(model_folder(tmp_path / "padded", config=128, rows=128, tokens=100))
    check_vocabulary(model_folder(tmp_path / "exact", config=100, rows=100, tokens=100))
    cases = {
        "more tokens than embeddings": ({"config": 100, "rows": 100, "tokens": 120}, "token ids up to 119"),
        "weights of another model": ({"config": 120, "rows": 100, "tokens": 120}, "a vocabulary of 120, the weights"),
    }
    for name, (sizes, message) in cases.items():
        folder = model_folder(tmp_path / name.replace(" ", "_"), **sizes)
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--model", f"rl={folder}") == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1 and not service.bodies


def test_a_checkpoint_that_cannot_be_merged_is_one_error(
    tmp_path: Path, tenant: Path, service: RankService, capsys
) -> None:
    step = tmp_path / "rl" / "global_step_40"
    (step / "actor").mkdir(parents=True)
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--model", f"rl={step}") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --model rl: ") and "no checkpoint here" in told and told.count("\n") == 1
    (step / "actor" / "fsdp_config.json").write_text('{"world_size": 1}')
    assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--model", f"rl={step}") == 2
    assert "lacks model_world_size_1_rank_0.pt" in capsys.readouterr().err


def weights(tensors: dict[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file of that header."""
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header + data


EMBEDDING = {"dtype": "BF16", "shape": [10, 8], "data_offsets": [0, 160]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no safetensors header"),
        (b"\x05\0\0\0\0\0\0\0{{{{{", "its header is not"),
        (weights([1]), "its header is not"),
        (weights({"model.embed_tokens.weight": {"dtype": "BF16"}}), "its header is not"),
        (weights({"model.embed_tokens.weight": EMBEDDING | {"shape": []}}, bytes(160)), "its header is not"),
        (weights({"model.embed_tokens.weight": EMBEDDING | {"shape": "10"}}, bytes(160)), "its header is not"),
        (weights({"model.embed_tokens.weight": EMBEDDING}, bytes(100)), "cut off: "),
        (weights({"lm_head.weight": EMBEDDING}), "cut off: "),
    ],
)
def test_a_damaged_weight_file_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    folder = model_folder(tmp_path / "m", config=10, rows=10, tokens=10)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        check_vocabulary(folder)


def test_a_missing_shard_is_one_error_before_anything_is_asked(
    tmp_path: Path, tenant: Path, service: RankService, capsys
) -> None:
    folder = model_folder(tmp_path / "m", config=10, rows=10, tokens=10)
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    for text, message in (
        (json.dumps({"weight_map": shards}), "lacks model-00002-of-00002.safetensors"),
        ("{", "names no shards"),
        ('{"weight_map": ["a"]}', "names no shards"),
    ):
        index.write_text(text)
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], "--model", f"rl={folder}") == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1 and not service.bodies


def test_the_baseline_is_timed_live(tmp_path: Path, service: RankService) -> None:
    """Latency is that of live single requests, though every rewrite is recorded; without a service it is missing."""
    samples = [sample(i, "rank 1") for i in range(3)]
    with loopback_llm(rewrite=lambda body: {"rewritten_query": "rank 2"}) as url:
        baseline = {"url": url.removesuffix("/v1"), "attempts": 3, "timeout": 5}
        tenant = write_shop(tmp_path / "live.yaml", baseline=baseline)
        assert run(tmp_path, tenant, service, samples) == 0
        assert len(url.requests) == 3 and url.most_under_way == 1
    metrics, rows = read_run(tmp_path)
    assert metrics["latency_ms"]["baseline"]["n"] == 3 and metrics["tokens"]["baseline"] is None
    assert rows[0]["systems"]["baseline"]["rewrite"] == "rank 1"
    # The service is gone: three failures, then no more waiting; the rewrites are recorded, so the comparison holds.
    assert run(tmp_path, tenant, service, samples) == 0
    metrics, _ = read_run(tmp_path)
    assert metrics["latency_ms"]["baseline"] is None and metrics["systems"]["baseline"]["n"] == 3
    assert any(s.startswith("baseline: 3 of 3 timed requests failed") for s in metrics["provenance"]["missing"])


def test_the_ledger_names_prompted_calls(tmp_path: Path, tenant: Path, service: RankService) -> None:
    with loopback_llm(lambda body: completion("rank 1")) as url:
        more = ["--prompted", f"zero={profile(tmp_path / 'zero.yaml', url)}", "--ledger", str(tmp_path / "l.sqlite")]
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 0
    assert read_run(tmp_path)[0]["provenance"]["cut"]["zero"] == 0
    with sqlite3.connect(tmp_path / "l.sqlite") as db:
        assert db.execute("SELECT kind, service, status FROM calls").fetchall() == [("prompted", "m", "ok")]


def test_targets_stand_beside_what_was_measured(tmp_path: Path, service: RankService) -> None:
    tenant = write_shop(tmp_path / "shop.yaml", targets={"top1_accuracy": {"baseline": 0.5, "sft": 0.6, "rl": 0.9}})
    samples = [sample(i, "rank 1") for i in range(2)]
    recording = tmp_path / "sft.jsonl"
    write_atomically(recording, (json.dumps({"query": s.original_query, "rewritten_query": "rank 2"}) for s in samples))
    assert run(tmp_path, tenant, service, samples, "--recorded", f"other={recording}") == 0
    metrics, _ = read_run(tmp_path)
    rows = {(row["metric"], row["system"]): row for row in metrics["targets"]}
    assert len(rows) == 12 and set(metrics["targets"][0]) == {"metric", "system", "target", "measured", "met"}
    assert rows["top1_accuracy", "baseline"] == {
        "metric": "top1_accuracy", "system": "baseline", "target": 0.5, "measured": 1.0, "met": None
    }  # fmt: skip
    assert rows["top1_accuracy", "rl"]["measured"] is None and rows["judge_score", "rl"]["target"] == 4.5


def test_numbers_that_cannot_be_are_one_line(tmp_path: Path, tenant: Path, service: RankService, capsys) -> None:
    cases = [
        (["--max-cost", "-1"], "--max-cost -1: expected 0 or more"),
        (["--max-cost", "nan"], "--max-cost nan: expected"),
        (["--usd-per-hour", "-2"], "--usd-per-hour -2: expected 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0: expected 1 or more"),
        (["--prompted", "zero=nobody"], "prompted 'nobody': no file"),
        (["--prompted", "a_vs_b=self_hosted"], "could be read as a pair"),
        (["--judge", "nobody"], "judge 'nobody': no file"),
        (["--recorded", f"old={tmp_path}"], "rewrites.jsonl: no such file"),
    ]
    for more, message in cases:
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and message in told and told.count("\n") == 1
    for targets, message in (({"top1_accuracy": {"rl": 85}}, "more than 1"), ({"speed": {}}, "targets.speed")):
        assert run(tmp_path, write_shop(tenant, targets=targets), service, [sample(0, "rank 1")]) == 2
        assert message in capsys.readouterr().err


def test_profiles_of_the_house_are_valid() -> None:
    for file in PROMPTED_CONFIGS.glob("*.yaml"):
        settings = load_prompted(file.stem)
        assert settings.api_key_env or settings.base_url.startswith("http://127.0.0.1")


def test_the_retriever_has_a_fingerprint(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """It changes with the index, and says where training had another knowledge base or reranker."""
    kb = {
        "tenant_id": "shop", "kb_name": "default", "version": 3, "embedder_id": "e@1", "tokenizer_id": "t",
        "fusion": "rrf", "store_id": "qdrant", "reranker": "lexical", "documents": 9,
    }  # fmt: skip
    service.health = {"knowledge_bases": [{"tenant_id": "other", "kb_name": "default"}, kb]}
    samples = [sample(0, "rank 1")]
    assert run(tmp_path, tenant, service, samples) == 0
    first = read_run(tmp_path)[0]["provenance"]["retriever"]
    assert first["index"]["embedder_id"] == "e@1" and first["scorers"] == ["lexical"] and first["training"] == {}
    assert run(tmp_path, tenant, service, samples) == 0
    assert read_run(tmp_path)[0]["provenance"]["retriever"] == first
    service.health = {"knowledge_bases": [kb | {"version": 4}]}
    assert run(tmp_path, tenant, service, samples) == 0
    assert read_run(tmp_path)[0]["provenance"]["retriever"]["fingerprint"] != first["fingerprint"]
    # A service that does not describe its index: said, not guessed.
    service.health = None
    assert run(tmp_path, tenant, service, samples) == 0
    provenance = read_run(tmp_path)[0]["provenance"]
    assert provenance["retriever"]["index"] is None
    assert any("the retriever's index is not known" in sentence for sentence in provenance["missing"])
    recorded = RecordedServices("", "", kb_name="default", kb_version="7", start_from="")
    trained = TrainingRun(tmp_path, recorded, reranker="bge@123456789012", before=None)
    told = describe_retriever(RagSettings(), None, ["lexical"], {"rl": trained, "sft": None})["training"]
    assert told["sft"] is None and told["rl"]["changed"] == [
        "kb_version: '7' in training, '' here",
        "reranker: 'bge@123456789012' in training, 'lexical' here",
    ]


def test_tokens_that_nobody_reports_are_missing(tmp_path: Path, tenant: Path, service: RankService) -> None:
    """What is booked for such an answer is its bound: neither a measurement, nor a sign that it was cut."""
    with loopback_llm(lambda body: "rank 1") as url:
        more = ["--prompted", f"zero={profile(tmp_path / 'zero.yaml', url, price=PRICE)}", "--max-cost", "1"]
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 0
    metrics, _ = read_run(tmp_path)
    assert metrics["tokens"]["zero"] is None and metrics["cost_per_1000"]["zero"] is None
    assert metrics["provenance"]["cut"]["zero"] == 0 and metrics["latency_ms"]["zero"]["n"] == 1
    assert "zero: tokens of 1 of 1 answers are not reported: left out" in metrics["provenance"]["missing"]


def test_cut_answers_are_counted(tmp_path: Path, tenant: Path, service: RankService) -> None:
    with loopback_llm(lambda body: completion("rank 1", written=16)) as url:
        more = ["--prompted", f"zero={profile(tmp_path / 'zero.yaml', url, max_output_tokens=16)}"]
        assert run(tmp_path, tenant, service, [sample(0, "rank 1")], *more) == 0
    provenance = read_run(tmp_path)[0]["provenance"]
    assert provenance["cut"]["zero"] == 1 and provenance["max_new_tokens"]["zero"] == 16
