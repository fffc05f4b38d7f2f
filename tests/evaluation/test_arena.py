"""The arena's versions, rounds, votes and workbooks, against real services on loopback."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import demo
from evaluation.arena.rounds import NoContest, Round, Side, VoteFile, draw_sample, play_round, retriever, typed_sample
from evaluation.arena.versions import ChatModel, Original, Recorded, Service, build_versions
from evaluation.texts import LANGUAGES, load_texts
from reward.judge.canary import read_pairs
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.sample import Context, Hit, Metadata, Sample
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings, load_tenant
from reward.settings.services import BaselineSettings
from tests.support.loopback_llm import Fault, loopback_llm
from tests.support.ports import refusing_url
from tests.support.tenant_services import LoopbackServices, write_tenant

TENANT = TenantSettings(tenant_id="shop", short_id="shop", system_prompt="改写查询。")
PHONE = "13812345678"


def sample(query: str = "鱼油咋吃", history: str = "") -> Sample:
    context = Context(user_profile="孕妇", history_context=history)
    metadata = Metadata(tenant_id="shop", split="test")
    return Sample(sample_id="shop_001", original_query=query, context=context, metadata=metadata)


def answer(path: str, body: dict[str, Any], number: int) -> Any:
    if path == "rewrite":
        return {"rewritten_query": f"{body['query']} 用法用量"}
    hit = {"content": f"段落：{body['rewritten_query']}", "score": 1.0, "reranker_score": 0.5, "doc_id": "p1"}
    return {"data": {"recall": [hit]}}


@pytest.fixture
def services() -> Iterator[LoopbackServices]:
    running = LoopbackServices(answer)
    yield running
    running.close()


def write_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "rewrites.jsonl").write_text(text, encoding="utf-8")
    return folder


def recorded_row(query: str, context: str = "孕妇", **rewrites: str | None) -> dict[str, Any]:
    return {"query": query, "context": context, "systems": {name: {"rewrite": r} for name, r in rewrites.items()}}


def play(first: Any, second: Any, tenant: TenantSettings, seed: str = "0") -> Round | NoContest:
    async def once() -> Round | NoContest:
        client = RagClient(tenant.rag, tenant.tenant_id)
        try:
            return await play_round(sample(), first, second, retriever(client), seed)
        finally:
            await client.aclose()
            await first.aclose()
            await second.aclose()

    return asyncio.run(once())


def test_the_order_is_of_chance_and_comes_again_with_its_seed(services: LoopbackServices, tmp_path: Path) -> None:
    first = Recorded("old", {("鱼油咋吃", "孕妇"): "鱼油 用法"})

    async def retrieve(_: Sample, rewrite: str) -> tuple[Hit, ...]:
        return (Hit(content=rewrite),)

    def order(seed: int) -> str:
        game = asyncio.run(play_round(sample(), first, Original(), retrieve, f"7-{seed}"))
        assert isinstance(game, Round)
        assert (game.a.hits[0].content, game.b.hits[0].content) == (game.a.rewrite, game.b.rewrite)
        return game.a.version

    orders = [order(seed) for seed in range(200)]
    assert orders == [order(seed) for seed in range(200)]
    assert 70 <= Counter(orders)["old"] <= 130


def test_rounds_are_played_on_live_services(services: LoopbackServices, tmp_path: Path) -> None:
    tenant = load_tenant(str(write_tenant(tmp_path / "shop.yaml", services)))
    game = play(Service("live", tenant.baseline, tenant.tenant_id), Original(), tenant)
    assert isinstance(game, Round)
    assert {game.a.rewrite, game.b.rewrite} == {"鱼油咋吃", "鱼油咋吃 用法用量"}
    assert {body["top_k"] for path, body in services.requests if path == "retrieve"} == {5}


@pytest.mark.parametrize(
    ("text", "rewrite"),
    [
        ("鱼油 用法用量", "鱼油 用法用量"),
        ("<think>\n用户问用法\n</think>\n\n鱼油\n用法用量 ", "鱼油 用法用量"),
        (f"鱼油 电话{PHONE}", "鱼油 电话[电话]"),
        ("<think>没完", None),
        ("  ", None),
    ],
)
def test_a_chat_model_answers_with_one_line(text: str, rewrite: str | None) -> None:
    with loopback_llm(lambda body: text) as url:

        async def ask() -> str | ServiceFailure:
            model = ChatModel("m", url, "qwen", TENANT)
            try:
                return await model.rewrite(sample())
            finally:
                await model.aclose()

        answer = asyncio.run(ask())
        (body,) = url.requests
    assert answer == rewrite if rewrite else isinstance(answer, ServiceFailure)
    assert body["messages"][0] == {"role": "system", "content": "改写查询。"}
    assert "原始查询: 鱼油咋吃" in body["messages"][1]["content"]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_server_that_refuses_the_switch_is_asked_without_it() -> None:
    def strict(body: dict) -> str | Fault:
        return Fault(status=400) if "chat_template_kwargs" in body else "鱼油 用法"

    with loopback_llm(strict) as url:

        async def ask() -> list[str | ServiceFailure]:
            model = ChatModel("m", url, "gpt", TENANT)
            try:
                return [await model.rewrite(sample()) for _ in range(2)]
            finally:
                await model.aclose()

        assert asyncio.run(ask()) == ["鱼油 用法", "鱼油 用法"]
        assert len(url.requests) == 3


def broken_retrieval(path: str, body: dict[str, Any], number: int) -> Any:
    return {"data": {}} if path == "retrieve" else answer(path, body, number)


def empty_rewrite(path: str, body: dict[str, Any], number: int) -> Any:
    return {"rewritten_query": " "} if path == "rewrite" else answer(path, body, number)


@pytest.mark.parametrize(
    ("answers", "words"), [(broken_retrieval, "lacks data.recall"), (empty_rewrite, "lacks rewritten_query")]
)
def test_a_round_with_a_failure_is_no_contest(answers: Callable[..., Any], words: str, tmp_path: Path) -> None:
    services = LoopbackServices(answers)
    try:
        tenant = load_tenant(str(write_tenant(tmp_path / "shop.yaml", services)))
        game = play(Service("live", tenant.baseline, tenant.tenant_id), Original(), tenant)
    finally:
        services.close()
    assert isinstance(game, NoContest) and words in game.reason


def test_an_unreachable_version_is_no_contest(services: LoopbackServices, tmp_path: Path) -> None:
    tenant = load_tenant(str(write_tenant(tmp_path / "shop.yaml", services)))
    with refusing_url() as url:
        settings = BaselineSettings(url=url, attempts=1)
        game = play(Service("gone", settings, tenant.tenant_id), Original(), tenant)
    assert isinstance(game, NoContest)
    assert not [path for path, _ in services.requests if path == "retrieve"]


def test_recorded_versions_know_their_queries_alone(tmp_path: Path) -> None:
    rows = [
        recorded_row("鱼油咋吃", rl="鱼油 用法", sft=None),
        recorded_row("钙片", context="", rl="钙片 用法", sft="钙"),
    ]
    versions = build_versions(TENANT, [str(write_run(tmp_path / "evaluation", rows))])
    assert list(versions) == ["original", "evaluation/rl", "evaluation/sft"]
    twice = [str(tmp_path / "evaluation"), f"old={tmp_path / 'evaluation'}"]
    assert list(build_versions(TENANT, twice))[-2:] == ["old/rl", "old/sft"]
    with pytest.raises(BadInput, match="two versions are named 'evaluation/rl'"):
        build_versions(TENANT, twice[:1] * 2)
    rl, sft = versions["evaluation/rl"], versions["evaluation/sft"]
    assert asyncio.run(rl.rewrite(sample(" 鱼油咋吃"))) == "鱼油 用法"
    assert isinstance(asyncio.run(rl.rewrite(sample("钙片"))), ServiceFailure)  # of another context
    bare = sample("钙片").model_copy(update={"context": Context()})
    assert draw_sample([sample(), bare], [rl, sft], "1") == bare
    assert draw_sample([sample()], [rl, sft], "1") is None


def test_what_is_typed_is_masked_as_training_data_is() -> None:
    typed, masked = typed_sample(
        f"我电话{PHONE} 鱼油\n怎么吃", "姓名: 王小明", "", "用户: 加微信 wx_abc123\n助手: 好", TENANT
    )
    assert typed is not None
    assert typed.original_query == "我电话[电话] 鱼油 怎么吃"
    assert PHONE not in typed.to_json() and "wx_abc123" not in typed.to_json() and "王小明" not in typed.to_json()
    assert typed.context.history_context.count("\n") == 1
    assert masked["phone"] == 1 and masked.total() >= 3
    assert typed_sample(" \n", "画像", "", "", TENANT) == (None, Counter())
    kept = TENANT.model_copy(update={"deidentify": TENANT.deidentify.model_copy(update={"kinds": ()})})
    assert typed_sample(PHONE, "", "", "", kept)[0].original_query == PHONE


def game(rewrite_a: str = "鱼油 用法", rewrite_b: str = "鱼油") -> Round:
    return Round(sample(), Side("evaluation/rl", rewrite_a, ()), Side("baseline", rewrite_b, ()), "7-0")


def test_votes_are_canary_pairs_that_say_where_they_are_from(tmp_path: Path) -> None:
    file = tmp_path / "new" / "votes.jsonl"
    votes = VoteFile(file, TENANT)
    assert votes.count == 0
    votes.append(game(), "a", f"更准 {PHONE}")
    votes.append(game(), "tie")
    one, two = read_pairs(file)
    assert (one.preferred, one.rewrite_a, one.rewrite_b, one.note) == ("a", "鱼油 用法", "鱼油", "更准 [电话]")
    assert one.origin.startswith("arena: a=evaluation/rl b=baseline seed=7-0 sample=shop_001 at=20")
    assert one.context.user_profile == "孕妇" and one.pair_id != two.pair_id
    assert file.stat().st_mode & 0o777 == 0o600
    # A file that an editor left without its last line break goes on in a line of its own.
    file.write_text(file.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    again = VoteFile(file, TENANT)
    assert again.count == 2
    again.append(game(), "b")
    assert [pair.preferred for pair in read_pairs(file)] == ["a", "tie", "b"]


def test_votes_go_to_no_file_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text(sample().to_json() + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="row 1"):
        VoteFile(tmp_path / "samples.jsonl", TENANT)
    with pytest.raises(BadInput, match="is no file"):
        VoteFile(tmp_path, TENANT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to compare"),
        ({"services": ["new"]}, "--service"),
        ({"services": ["a b=http://127.0.0.1:1"]}, "without blanks"),
        ({"services": ["original=http://127.0.0.1:1"]}, "two versions are named 'original'"),
        ({"services": ["new=http://user:pw@127.0.0.1:1"]}, "must not hold user or password"),
        ({"services": ["new=127.0.0.1:1"]}, "not an http"),
        ({"chats": ["new=http://127.0.0.1:1/v1"]}, "expected NAME=URL#MODEL"),
        ({"chats": ["m=http://127.0.0.1:1/v1#q"], "chat_keys": ["n=KEY"]}, "no --chat of that name"),
        ({"chats": ["m=http://127.0.0.1:1/v1#q"], "chat_keys": ["m=ARENA_UNSET"]}, "ARENA_UNSET"),
        ({"runs": ["nowhere"]}, "run evaluation.compare first"),
    ],
)
def test_bad_versions_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as told:
        build_versions(TENANT, **options)
    assert "pw" not in str(told.value).replace("user or password", "")


def test_a_damaged_run_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rewrites.jsonl: row 1: expected query, context and systems"):
        build_versions(TENANT, [str(write_run(tmp_path / "run", [{"query": "鱼油"}]))])


def test_a_workbook_in_and_a_workbook_out(
    services: LoopbackServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openpyxl

    from data_prep.bvt.row import BvtRow
    from data_prep.bvt.workbook import write_workbook

    tenant = write_tenant(tmp_path / "shop.yaml", services)
    asked = [BvtRow(original_query=f"鱼油咋吃 {PHONE}"), BvtRow(original_query="=1+1", user_profile="孕妇")]
    write_workbook(tmp_path / "in.xlsx", asked)
    command = ["--tenant", str(tenant), "--batch", str(tmp_path / "in.xlsx"), "--version"]
    assert demo.main([*command, "baseline", "--out", str(tmp_path / "out.xlsx")]) == 0
    assert "2 rows, 0 failed" in capsys.readouterr().out
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    heading, *rows = sheet.iter_rows(values_only=True)
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["original_query"] for row in table] == ["鱼油咋吃 [电话]", "=1+1"]
    assert [row["rewritten_query"] for row in table] == ["鱼油咋吃 [电话] 用法用量", "=1+1 用法用量"]
    assert [(row["recall_count"], row["top1_score"], row["success"]) for row in table] == [(1, 0.5, True)] * 2
    assert table[1]["user_profile"] == "孕妇"
    assert PHONE not in json.dumps(services.requests)

    for version, out, message in (
        ("nobody", "out.xlsx", "--version nobody: expected one of original, baseline"),
        ("baseline", "out.csv", "--batch needs --out FILE.xlsx"),
    ):
        assert demo.main([*command, version, "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err


def test_rows_that_fail_say_why_and_a_batch_without_an_answer_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_prep.bvt.row import BvtRow
    from data_prep.bvt.workbook import write_workbook

    def half(path: str, body: dict[str, Any], number: int) -> Any:
        return {"rewritten_query": ""} if body["query"] == "坏" else answer(path, body, number)

    services = LoopbackServices(half)
    try:
        tenant = write_tenant(tmp_path / "shop.yaml", services)
        command = ["--tenant", str(tenant), "--version", "baseline", "--out", str(tmp_path / "out.xlsx")]
        write_workbook(tmp_path / "bad.xlsx", [BvtRow(original_query="坏")])
        assert demo.main([*command, "--batch", str(tmp_path / "bad.xlsx")]) == 2
        assert "every row failed; the first: answer lacks rewritten_query" in capsys.readouterr().err
        assert not (tmp_path / "out.xlsx").exists()
        write_workbook(tmp_path / "half.xlsx", [BvtRow(original_query="坏"), BvtRow(original_query="好的")])
        assert demo.main([*command, "--batch", str(tmp_path / "half.xlsx")]) == 0
        told = capsys.readouterr()
        assert "2 rows, 1 failed" in told.out and "lacks rewritten_query" in told.err
        # A row that cannot be asked is in no workbook: it is named.
        (tmp_path / "blank.csv").write_text("query,user_profile\n好的,\n,四十岁\n", encoding="utf-8")
        assert demo.main([*command, "--batch", str(tmp_path / "blank.csv")]) == 0
        told = capsys.readouterr()
        assert "1 could not be asked" in told.out and "left out: row 3 of" in told.err
    finally:
        services.close()


def test_without_its_library_the_page_says_what_to_install(
    services: LoopbackServices, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nicegui", None)
    monkeypatch.delitem(sys.modules, "evaluation.arena.page", raising=False)
    tenant = write_tenant(tmp_path / "shop.yaml", services)
    assert demo.main(["--tenant", str(tenant), "--votes", str(tmp_path / "votes.jsonl")]) == 2
    assert capsys.readouterr().err == "error: the page needs nicegui: pip install 'sales-rag-rewriter[demo]'\n"


def test_tenants_of_health_are_marked() -> None:
    assert [load_tenant(name).medical for name in ("fivedoctors", "chengla", "zlkt")] == [True, False, False]


def test_both_languages_say_the_same_things() -> None:
    chinese, english = (load_texts("demo", language) for language in LANGUAGES)
    assert set(chinese) == set(english)
