"""evaluation.headroom against the real retrieval service on loopback, and its formulas against brute force."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from evaluation import headroom
from evaluation.headroom_study.asking import Retrieved
from evaluation.headroom_study.best_of import chosen_by, expected_best, steps_to
from evaluation.headroom_study.subsets import search_subsets
from evaluation.headroom_study.verdict import verdict_of
from evaluation.headroom_study.words import Frequencies, context_words, join_words, words_of
from reward.records.files import write_atomically
from reward.records.sample import Candidates, Metadata, Sample
from tests.support import ROOT
from tests.support.asgi_server import AsgiServer
from tests.support.rag_server import HEALTH, add_knowledge_base, rewriter_service, serving


class WordsService:
    """Finds `p` first when the rewrite holds every word of the query's key and no word of its trap, else third.

    Queries look like `key=b,d trap=a …`: the rewriter's knowledge is in the query itself. A query `broken` fails.
    """

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.down, self.pause = False, 0.0
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request) -> JSONResponse:
            body = await request.json()
            query, rewrite = body["query"], body["rewritten_query"]
            self.asked[query, rewrite] += 1
            await asyncio.sleep(self.pause)
            if self.down or "refused" in query or ("broken" in query and rewrite != query):
                return JSONResponse({"detail": "no"}, status_code=400)
            said = set(rewrite.split())
            first = {"b", "d"} <= said and "a" not in said
            ids = ["p", "x", "y"] if first else ["x", "y", "p"]
            recall = [{"content": i, "score": 1.0, "reranker_score": 0.9 if first else 0.3, "doc_id": i} for i in ids]
            return JSONResponse({"data": {"recall": recall, "reranker": "scripted"}})

        self._server = AsgiServer(app, log_level="error")
        self.url, self.close = self._server.url, self._server.close


@pytest.fixture
def words_service() -> Iterator[WordsService]:
    running = WordsService()
    yield running
    running.close()


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    values = {
        "tenant_id": "fivedoctors",
        "short_id": "shop",
        "language": "zh",
        "system_prompt": "改写查询。",
        "rag": {"attempts": 1, "timeout": 5},
    }
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def sample(number: int, query: str, baseline: str = "", relevant: tuple[str, ...] = ("p",), **update: Any) -> Sample:
    return Sample(
        sample_id=f"t_{number:03d}",
        original_query=query,
        metadata=Metadata(tenant_id="fivedoctors", split="test", slices=update.pop("slices", ())),
        candidates=Candidates(baseline=baseline),
        relevant_doc_ids=relevant,
        **update,
    )


def run(tmp_path: Path, tenant: Path, url: str, samples: list[Sample], *more: str) -> int:
    write_atomically(tmp_path / "test.jsonl", [sample.to_json() for sample in samples])
    fixed = ["--test", str(tmp_path / "test.jsonl"), "--tenant", str(tenant), "--out", str(tmp_path / "out")]
    return headroom.main([*fixed, "--rag-url", url, *more])


def results_of(tmp_path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((tmp_path / "out" / "headroom.json").read_text(encoding="utf-8"))
    return results


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_best_of_k_is_the_mean_over_all_subsets(k: int) -> None:
    values = [0.0, 1.0, 0.25, 0.25, 0.5]
    subsets = list(itertools.combinations(values, k))
    assert expected_best(values, k) == pytest.approx(sum(map(max, subsets)) / len(subsets))


def test_best_of_k_is_pass_at_k_for_hits_and_misses() -> None:
    assert expected_best([1, 0, 0, 0], 2) == pytest.approx(1 - 3 / 6)
    with pytest.raises(ValueError, match="best of 5 from 4"):
        expected_best([0, 0, 0, 1], 5)
    assert steps_to(16) == [1, 2, 4, 8, 16]
    assert steps_to(12) == [1, 2, 4, 8, 12]
    assert steps_to(1) == [1]
    assert chosen_by([1.0, 0.0, 0.5], [0.2, 0.9, 0.9]) == 0.25


def test_words_and_their_subsets() -> None:
    text = "你好，请问鱼油（Omega-3）孕妇能吃吗？"
    words = words_of(text)
    assert [word.text for word in words if word.text in ("鱼油", "Omega-3", "孕妇")] == ["鱼油", "Omega-3", "孕妇"]
    assert all(text[word.start : word.end] == word.text for word in words)
    places = {word.text: i for i, word in enumerate(words)}
    assert join_words(text, words, [places["鱼油"], places["Omega-3"]]) == "鱼油（Omega-3"
    assert join_words(text, words, [places["孕妇"], places["鱼油"]]) == "鱼油 孕妇"
    assert words_of("… ?! 。") == []
    assert sum(len(word.text) for word in words_of("鱼" * 3000)) == 3000


def test_context_words_are_the_telling_ones() -> None:
    texts = [f"when did it end number{i}" for i in range(50)] + ["when did Zappa tour Zappa Paris"]
    assert context_words("When did he tour?", "when did Zappa tour Zappa Paris", Frequencies(texts), 2) == [
        "Zappa",
        "Paris",
    ]


@pytest.mark.parametrize(("words", "most", "exhaustive"), [(4, 64, True), (9, 64, False)])
def test_search_finds_the_words_that_matter(words: int, most: int, exhaustive: bool) -> None:
    """Rank 1 needs words 1 and 3 without word 0; each word too many costs a rank."""
    asked: list[frozenset[int]] = []

    async def ask(kept: frozenset[int]) -> Retrieved:
        asked.append(kept)
        good = {1, 3} <= kept and 0 not in kept
        return Retrieved(1 if good and len(kept) == 2 else 2 + len(kept) if good else 50, 0.5)

    search = asyncio.run(search_subsets(words, ask, most, Retrieved(90, 0.5)))
    assert search.best == {1, 3}
    assert search.found.rank == 1
    assert len(asked) == len(set(asked)) <= most
    assert not search.exhaustive  # it ended where the passage came first

    async def never(kept: frozenset[int]) -> Retrieved:
        asked.append(kept)
        return Retrieved(None, 0.5)

    asked.clear()
    search = asyncio.run(search_subsets(words, never, most, Retrieved(None, 0.5)))
    assert search.exhaustive is exhaustive
    assert len(asked) <= most
    assert len(asked) == (2**words - 2 if exhaustive else len(asked))


def test_oracle_leaves_no_number_out(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    """The passage comes first without `a`; with a dose behind it the gates bar every choice without it."""
    free, bound = sample(0, "a b d"), sample(1, "a b d 20 mg")
    assert run(tmp_path, tenant, words_service.url, [free, bound], "--channels", "service") == 0
    lines = (tmp_path / "out" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [json.loads(line)["channels"]["service"]["chosen"]["oracle: the query's words"] for line in lines]
    assert chosen[0] == "b d"
    assert chosen[1] == "b d 20 mg"
    asked = [rewrite for query, rewrite in words_service.asked if query == bound.original_query]
    assert len(asked) > 2 and all("20" in rewrite for rewrite in asked)
    assert results_of(tmp_path)["channels"]["service"]["search"]["barred_by_gates"] > 0


def test_study_end_to_end(tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any) -> None:
    """Two queries that the right words lift to the first place, one that is first already, one that fails."""
    samples = [
        sample(9, "refused always", "b d"),  # the first probe: that one query fails is no reason to give up
        sample(0, "a b c d", "b c d", slices=("trap",)),
        sample(1, "a b d", "a b d"),
        sample(2, "b d", "b d"),
        sample(3, "broken a b d", "b d"),
    ]
    draws = [("a b c d", "b d"), ("a b c d", "a"), ("a b d", "a b"), ("a b d", "d"), ("b d", "b d"), ("b d", "b d")]
    lines = [
        json.dumps({"query": query, "rewritten_query": rewrite})
        for query, rewrite in [*draws, *[("broken a b d", "b d"), ("refused always", "b d")] * 2]
    ]
    write_atomically(tmp_path / "draws.jsonl", lines)
    more = ("--recorded", f"policy={tmp_path / 'draws.jsonl'}", "--n", "2", "--channels", "service", "bm25")
    assert run(tmp_path, tenant, words_service.url, samples, *more) == 0
    results = results_of(tmp_path)
    service = results["channels"]["service"]
    systems = {name: (system["mrr@10"], system["success@1"]) for name, system in service["systems"].items()}
    third = 1 / 3
    assert systems["original"] == (pytest.approx((third + third + 1) / 3), pytest.approx(1 / 3))
    assert systems["baseline"] == (pytest.approx((1 + third + 1) / 3), pytest.approx(2 / 3))
    assert systems["oracle: the query's words"] == (1, 1)
    assert systems["policy: one draw"][0] == pytest.approx(((1 + third) / 2 + third + 1) / 3)
    assert systems["policy: best of 2"][0] == pytest.approx((1 + third + 1) / 3)
    assert service["best_of"]["policy"]["curve"]["1"]["mrr@10"] == pytest.approx(systems["policy: one draw"][0])
    # Its score tells the good draw of the first query; nothing tells one of the second.
    assert service["best_of"]["policy"]["hindsight"]["mrr@10"] == pytest.approx(0)
    assert service["where"] == {"first_already": 1, "can_be_first": 2, "can_rise": 0, "no_better": 0, "never_in_10": 0}
    # The failed samples leave every system's mean, and are counted and named.
    assert service["n"] == 3
    assert list(service["left_out"].values()) == [1, 1]
    assert service["left_out_ids"] == ["t_009", "t_003"]
    assert service["slices"]["trap"]["systems"]["baseline"]["mrr@10"] == 1
    # A service that cannot switch says nothing of a channel.
    assert "bm25" in results["not_measured"]
    assert list(results["channels"]) == ["service"]
    assert results["verdict"]["sentences"].startswith("3 queries cannot tell whether there is room")
    assert "2 queries are left out" in results["verdict"]["detail"]
    # Whatever was asked was asked once, the probes apart.
    twice = {pair for pair, count in words_service.asked.items() if count > 1 and pair[0] != pair[1]}
    assert not twice - {pair for pair in words_service.asked if "broken" in pair[0]}
    page = (tmp_path / "out" / "headroom.md").read_text(encoding="utf-8")
    assert "b d" in page
    assert len((tmp_path / "out" / "examples.jsonl").read_text(encoding="utf-8").splitlines()) == 5
    assert "oracle" in capsys.readouterr().out


def test_second_run_asks_nothing_but_the_probes(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    samples = [sample(i, f"a b c d q{i}") for i in range(3)]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 0
    first = results_of(tmp_path)
    asked = sum(words_service.asked.values())
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 0
    again = results_of(tmp_path)
    assert again["channels"] == first["channels"]
    assert again["calls"]["questions_asked"] == 0
    assert sum(words_service.asked.values()) - asked == again["calls"]["retrieval_requests"] <= 6


def test_best_of_n_of_the_deployed_rewriter(
    tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any
) -> None:
    """It answers the first query otherwise each time, the second always alike: then three answers are enough."""
    asked: Counter[str] = Counter()

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        query = request["query"]
        asked[query] += 1
        rewrite = "b d" if query.endswith("q1") or asked[query] == 4 else f"a b {asked[query]}"
        return 200, json.dumps({"rewritten_query": rewrite}).encode()

    with rewriter_service(answer) as url:
        values = yaml.safe_load(tenant.read_text(encoding="utf-8"))
        tenant.write_text(yaml.safe_dump({**values, "baseline": {"url": url}}, allow_unicode=True), encoding="utf-8")
        samples = [sample(0, "a b c d q0"), sample(1, "a b c d q1")]
        more = ("--channels", "service", "--baseline-n", "6", "--subsets", "0")
        assert run(tmp_path, tenant, words_service.url, samples, *more) == 0
    assert asked == {"a b c d q0": 6, "a b c d q1": 3}
    assert "at most 12 answers of the deployed rewriter" in capsys.readouterr().out
    results = results_of(tmp_path)
    systems = results["channels"]["service"]["systems"]
    assert results["provenance"]["baseline_always_alike"] == 1
    assert systems["baseline: one draw"]["success@1"] == pytest.approx((1 / 6 + 1) / 2)
    assert systems["baseline: best of 6"]["success@1"] == 1
    curve = results["channels"]["service"]["best_of"]["baseline"]["curve"]
    assert curve["2"]["mrr@10"] == pytest.approx(((1 / 3) * 1 + (2 / 3) / 3 + 1) / 2)


def test_killed_study_goes_on_where_it_was(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    samples = [sample(i, f"a c d e f g {chr(104 + i)}") for i in range(12)]
    write_atomically(tmp_path / "test.jsonl", [one.to_json() for one in samples])
    fixed = ["--test", str(tmp_path / "test.jsonl"), "--tenant", str(tenant), "--out", str(tmp_path / "out")]
    arguments = [*fixed, "--rag-url", words_service.url, "--channels", "service", "--subsets", "40"]
    words_service.pause = 0.005
    child = subprocess.Popen([sys.executable, "-m", "evaluation.headroom", *arguments], cwd=ROOT)
    while sum(words_service.asked.values()) < 120:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not (tmp_path / "out" / "headroom.json").exists()
    words_service.pause = 0.0
    assert headroom.main(arguments) == 0
    # What was asked for twice was under way when the kill came; the probes are always asked.
    twice = sum(count > 1 for (query, rewrite), count in words_service.asked.items() if query != rewrite)
    assert twice <= 10
    results = results_of(tmp_path)
    assert results["calls"]["questions_on_disk"] > 60
    assert results["channels"]["service"]["n"] == 12


def test_cap_on_calls_is_kept_and_named(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    samples = [sample(i, f"a b c d q{i}", "b d") for i in range(6)]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service", "--max-calls", "26") == 0
    results = results_of(tmp_path)
    assert sum(words_service.asked.values()) == results["calls"]["retrieval_requests"] == 26
    assert results["calls"]["not_asked_for_max_calls"] > 0
    assert results["channels"]["service"]["search"]["cut_short"] > 0
    assert results["channels"]["service"]["n"] == 6


def test_deployed_rewriter_that_never_answers_is_named(
    tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any
) -> None:
    values = yaml.safe_load(tenant.read_text(encoding="utf-8"))
    values["baseline"] = {"url": "http://127.0.0.1:1", "attempts": 1}
    tenant.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    samples = [sample(i, f"a b c d q{i}") for i in range(3)]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 2
    assert "no query could be compared; 3 of 3: baseline: no rewrite" in capsys.readouterr().err


def test_service_that_dies_ends_the_study_with_its_answers_kept(
    tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any
) -> None:
    samples = [sample(i, f"a b c d e f q{i}", "b d") for i in range(30)]
    words_service.down = True
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "out" / "headroom.json").exists()


def test_channels_of_the_real_service(tmp_path: Path, tenant: Path) -> None:
    """Real BM25 and vectors over HTTP; queries made from its passages, which it gives out itself."""
    folder = tmp_path / "data"
    add_knowledge_base(folder, "fivedoctors", dict(list(HEALTH.items())[:60]))
    arguments = ["--synthesise", "--queries", "12", "--tenant", str(tenant), "--out", str(tmp_path / "out")]
    with serving(folder) as url:
        assert headroom.main([*arguments, "--rag-url", url, "--subsets", "8"]) == 0
        results = results_of(tmp_path)
        assert list(results["channels"]) == ["service", "bm25", "dense", "hybrid"]
        assert not results["not_measured"]
        before = results["provenance"]["retriever"]
        assert before["described"]["passages"] == 60
        assert results["provenance"]["queries"]["synthetic"] is True
        assert "made from the passages" in results["verdict"]["detail"]
        bm25, dense = (results["channels"][name]["systems"]["original"]["mrr@10"] for name in ("bm25", "dense"))
        assert 0 < bm25 <= 1 and 0 < dense <= 1
        lines = (tmp_path / "out" / "synthetic_queries.jsonl").read_text(encoding="utf-8").splitlines()
        made = [Sample.model_validate_json(line) for line in lines]
        assert len(made) == 12
        assert len({s.metadata.slices for s in made}) > 2
        assert all(set(s.relevant_doc_ids) <= set(HEALTH) and s.relevant_doc_ids for s in made)
    # The knowledge base grows: what was kept of the smaller one is no answer for the larger.
    add_knowledge_base(tmp_path / "more", "fivedoctors", HEALTH)
    with serving(tmp_path / "more") as url:
        assert headroom.main([*arguments, "--rag-url", url, "--subsets", "0", "--channels", "bm25"]) == 0
    assert results_of(tmp_path)["provenance"]["retriever"]["fingerprint"] != before["fingerprint"]


def test_queries_from_a_folder(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    rows = [
        {
            "_id": f"d{i}" if i else "p",  # which the service finds
            "title": f"标题{i}",
            "text": f"鱼油{i}号建议每日两粒。孕妇请先咨询医生{i}。",
            "questions": [f"问{i}?"],
        }
        for i in range(8)
    ]
    write_atomically(tmp_path / "kb" / "corpus.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])
    arguments = ["--synthesise", "--kb", str(tmp_path / "kb"), "--queries", "20", "--tenant", str(tenant)]
    arguments += ["--out", str(tmp_path / "out"), "--rag-url", words_service.url, "--channels", "service"]
    assert headroom.main([*arguments, "--subsets", "2"]) == 0
    lines = (tmp_path / "out" / "synthetic_queries.jsonl").read_text(encoding="utf-8").splitlines()
    styles = Counter(Sample.model_validate_json(line).metadata.slices[0] for line in lines)
    assert sum(styles.values()) == 20
    assert {"synthetic_question", "synthetic_title"} <= set(styles)


def test_service_without_passages_asks_for_a_folder(
    tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any
) -> None:
    arguments = [
        "--synthesise",
        "--tenant",
        str(tenant),
        "--out",
        str(tmp_path / "out"),
        "--rag-url",
        words_service.url,
    ]
    assert headroom.main(arguments) == 2
    assert "--kb" in capsys.readouterr().err


def test_without_relevant_passages_the_score_judges(tmp_path: Path, tenant: Path, words_service: WordsService) -> None:
    samples = [sample(i, f"a b c d q{i}", "b d", relevant=()) for i in range(4)]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 0
    results = results_of(tmp_path)
    systems = results["channels"]["service"]["systems"]
    assert results["metric"] == "top1"
    assert systems["baseline"]["top1"] == pytest.approx(0.9)
    assert systems["original"]["top1"] == pytest.approx(0.3)
    assert not [name for name in systems if name.startswith("oracle")]
    assert "winner's curse" in results["verdict"]["detail"]


@pytest.mark.parametrize(
    ("n", "gain", "ci95", "outcome"),
    [
        (50, 0.2, [0.1, 0.3], "room"),
        (200, 0.005, [0.0, 0.01], "little"),
        (200, 0.05, [-0.01, 0.1], "undecided"),
        # Intervals without a width: forty queries that gain nothing do not rule out that one in forty gains all.
        (40, 0.0, [0.0, 0.0], "undecided"),
        (100, 0.0, [0.0, 0.0], "little"),
        (19, 1.0, [1.0, 1.0], "undecided"),
    ],
)
def test_verdict_follows_the_interval(n: int, gain: float, ci95: list[float], outcome: str) -> None:
    systems = {
        "original": {"mrr@10": 0.4, "hindsight": False},
        "rule: content words": {"mrr@10": 0.41, "hindsight": False},
        "best of all that was tried": {"mrr@10": 0.4 + gain, "hindsight": True},
    }
    results = {
        "n": n,
        "systems": systems,
        "gains": {
            "rule: content words": {"over_original": {"mrr@10": 0.01, "ci95": [-0.02, 0.03]}},
            "best of all that was tried": {"over_original": {"mrr@10": gain, "ci95": ci95}},
        },
        "where": {"first_already": 10, "can_be_first": 10, "can_rise": 10, "no_better": 10, "never_in_10": 10},
        "search": {"rewrites_tried_mean": 40.0},
        "best_of": {},
        "left_out": {},
    }
    verdict = verdict_of(results, by_rank=True, synthetic=False)
    assert verdict.outcome == outcome
    assert f"{gain:+.3f} (95 % interval {ci95[0]:+.3f} to {ci95[1]:+.3f})" in verdict.sentences
    assert "ceiling" in verdict.sentences


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--n", "65"], "not in 1 to 64"),
        (["--recorded", "policy=nowhere.jsonl"], "nowhere.jsonl"),
        (["--recorded", "Policy=x"], "expected NAME=PATH"),
        (["--model", "policy=nowhere"], "no such model folder"),
        (["--kb", "x"], "--kb goes with --synthesise"),
    ],
)
def test_bad_options(
    tmp_path: Path, tenant: Path, words_service: WordsService, capsys: Any, more: list[str], said: str
) -> None:
    try:
        code = run(tmp_path, tenant, words_service.url, [sample(0, "a b")], *more)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_draws_of_a_model_differ_and_are_kept(tmp_path: Path, tenant: Path) -> None:
    """A tiny random model through vLLM, in a child process."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from evaluation.headroom_study.candidates import model_draws
    from reward.settings.recipe import load_tenant
    from tests.support.tiny_models import save_tokenizer

    folder = tmp_path / "model"
    tokenizer = save_tokenizer(folder, "鱼油怎么吃钙片改写查询原始询用户的请")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **size, **heads)).save_pretrained(folder)
    samples = [sample(0, "鱼油怎么吃"), sample(1, "钙片怎么吃")]
    options = {"n": 4, "temperature": 1.0, "max_new_tokens": 8, "seed": 0}
    draws = model_draws(folder, samples, load_tenant(str(tenant)), tmp_path / "cache", **options)
    assert [len(of_sample) for of_sample in draws] == [4, 4]
    assert len({text for of_sample in draws for text in of_sample}) > 2
    kept = next((tmp_path / "cache").glob("draws_*.jsonl"))
    made = kept.stat().st_mtime_ns
    assert model_draws(folder, samples, load_tenant(str(tenant)), tmp_path / "cache", **options) == draws
    assert kept.stat().st_mtime_ns == made


def test_samples_without_relevant_passages_are_counted(tmp_path, tenant, words_service, capsys) -> None:
    samples = [
        *(sample(i, f"key=b,d a b d q{i}") for i in range(2)),
        *(sample(i, f"x{i}", relevant=()) for i in (7, 8, 9)),
    ]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service") == 0
    assert results_of(tmp_path)["provenance"]["queries"]["without_relevant_passages"] == 3
    assert "3 of 5 samples have no relevant passages" in capsys.readouterr().out
    page = (tmp_path / "out" / "headroom.md").read_text(encoding="utf-8")
    assert "3 more samples took no part" in page


def test_passages_of_another_knowledge_base_are_no_finding(tmp_path, tenant, words_service, capsys) -> None:
    """Thirty queries whose passage nothing reaches would read as little room."""
    samples = [sample(i, f"a b d q{i}", relevant=("elsewhere",)) for i in range(30)]
    assert run(tmp_path, tenant, words_service.url, samples, "--channels", "service", "--subsets", "0") == 2
    assert "relevant_doc_ids are not ids of this knowledge base" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["nan", "inf", "0", "-1"])
def test_a_temperature_that_is_none_is_refused(tmp_path, tenant, temperature) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, tenant, "http://127.0.0.1:9", [sample(0, "a")], "--temperature", temperature)
    assert ended.value.code == 2
