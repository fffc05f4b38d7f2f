"""The arena in a real headless Chromium: the command itself, on real services."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openpyxl
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from reward.judge.canary import CanaryPair
from reward.records.files import read_records
from reward.records.sample import Context, Metadata, Sample
from tests.support.browser import careful_page, chromium, needs_chromium
from tests.support.commands import start_module
from tests.support.ports import free_port
from tests.support.tenant_services import LoopbackServices, write_tenant

pytest.importorskip("nicegui", reason="the page needs NiceGUI: the optional extra `demo`")
pytestmark = needs_chromium

PHONE = "13812345678"
MARKUP = "<img src=x onerror=\"document.title='owned'\"><b>鱼油</b>"
NOTICE = "不构成医疗建议"


def answer(path: str, body: dict[str, Any], number: int) -> Any:
    if path == "rewrite":
        if body["query"] == "没有改写":
            return {"rewritten_query": ""}
        return {"rewritten_query": body["query"] if body["query"] == "鱼油" else f"{body['query']} 用法用量"}
    right = body["rewritten_query"].endswith("用法用量")
    first = {
        "content": f"{MARKUP} {body['rewritten_query']}",
        "reranker_score": 0.75,
        "doc_id": "p1" if right else "p9",
    }
    return {"data": {"recall": [first, {"content": "第二段", "reranker_score": 0.25, "doc_id": "p2"}]}}


@dataclass(frozen=True)
class RunningArena:
    url: str
    services: LoopbackServices
    votes: Path

    def pairs(self) -> list[CanaryPair]:
        return list(read_records(self.votes, CanaryPair)) if self.votes.is_file() else []


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArena]:
    folder = tmp_path_factory.mktemp("arena")
    services = LoopbackServices(answer)
    tenant = write_tenant(folder / "shop.yaml", services, medical=True)
    drawn = Sample(
        sample_id="fivedr_007",
        original_query="钙片咋吃",
        context=Context(user_profile="老人"),
        metadata=Metadata(tenant_id="fivedoctors", split="test"),
        relevant_doc_ids=("p1",),
    )
    (folder / "test.jsonl").write_text(drawn.to_json(), encoding="utf-8")
    port, votes = free_port(), folder / "votes.jsonl"
    options = ["--tenant", str(tenant), "--test", str(folder / "test.jsonl"), "--votes", str(votes)]
    process = start_module("evaluation.demo", *options, "--port", str(port), stdout=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield RunningArena(url, services, votes)
    finally:
        process.terminate()
        process.wait(20)
        services.close()


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the arena ended"
        try:
            assert httpx.get(url, trust_env=False).status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the arena did not start")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, arena: RunningArena) -> Iterator[Page]:
    with careful_page(browser, width=390, height=844) as opened:
        opened.goto(arena.url)
        expect(opened.get_by_role("button", name="对比", exact=True)).to_be_visible()
        yield opened
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def side(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def compare(page: Page, query: str) -> None:
    page.get_by_label("客户的问题").fill(query)
    page.get_by_role("button", name="对比", exact=True).click()


def test_a_round_is_blind_until_the_vote_and_kept_with_consent(page: Page, arena: RunningArena) -> None:
    expect(page.get_by_role("note")).to_contain_text(NOTICE)
    before = len(arena.pairs())
    page.get_by_role("button", name="抽一个留出的查询").click()
    expect(page.get_by_text("留出的查询 fivedr_007")).to_be_visible()
    expect(page.get_by_label("客户的问题")).to_have_value("钙片咋吃")
    page.get_by_role("button", name="对比", exact=True).click()
    texts = {name: side(page, name).locator(".rewrite").inner_text() for name in "AB"}
    assert set(texts.values()) == {"钙片咋吃", "钙片咋吃 用法用量"}
    for name, text in texts.items():
        assert side(page, name).locator(".content").all_inner_texts() == [f"{MARKUP} {text}", "第二段"]
    assert page.title() == "哪个改写更好？" and page.locator(".content b").count() == 0
    expect(page.get_by_text("正确答案")).to_have_count(0)
    expect(page.get_by_text(re.compile("[AB] 是"))).to_have_count(0)
    page.get_by_role("checkbox", name="我同意").click()
    expect(page.get_by_role("checkbox", name="我同意")).to_be_checked()
    page.get_by_label("为什么").fill(f"更准 {PHONE}")
    page.get_by_role("button", name="A 更好").click()
    expect(page.locator(".kept")).to_contain_text("投票已保存")
    expect(page.get_by_role("button", name="A 更好")).to_have_count(0)
    (pair,) = arena.pairs()[before:]
    assert (pair.preferred, pair.rewrite_a, pair.rewrite_b, pair.note) == ("a", texts["A"], texts["B"], "更准 [电话]")
    assert pair.context.user_profile == "老人" and "sample=fivedr_007" in pair.origin
    names = {"钙片咋吃": "original", "钙片咋吃 用法用量": "baseline"}
    expect(page.get_by_text(f"A 是 {names[texts['A']]}，B 是 {names[texts['B']]}。")).to_be_visible()
    assert f"a={names[texts['A']]} b={names[texts['B']]} " in pair.origin
    better = next(name for name, text in texts.items() if text.endswith("用法用量"))
    expect(page.get_by_text(f"{better}: 正确答案 #1")).to_be_visible()


def test_without_consent_nothing_is_kept_and_personal_data_never_leaves(page: Page, arena: RunningArena) -> None:
    before = arena.pairs()
    compare(page, f"我电话{PHONE} 鱼油咋吃")
    expect(page.get_by_text("已遮蔽个人信息：电话")).to_be_visible()
    assert {side(page, name).locator(".rewrite").inner_text() for name in "AB"} == {
        "我电话[电话] 鱼油咋吃",
        "我电话[电话] 鱼油咋吃 用法用量",
    }
    page.get_by_role("button", name="一样好").click()
    expect(page.locator(".kept")).to_have_text("没有保存任何内容。")
    expect(page.get_by_text(re.compile("A 是"))).to_be_visible()
    assert arena.pairs() == before
    assert PHONE not in json.dumps(arena.services.requests)


def test_what_cannot_be_compared_is_said_and_takes_no_vote(page: Page, arena: RunningArena) -> None:
    for query, words in (
        ("没有改写", "这一轮不能投票：answer lacks"),
        ("鱼油", "两个版本的改写相同"),
        ("  ", "请先输入问题"),
        ("鱼" * 501, "客户的问题：超过 500 个字符"),
    ):
        compare(page, query)
        expect(page.get_by_text(words)).to_be_visible()
        expect(page.get_by_role("button", name="A 更好")).to_have_count(0)


def test_a_workbook_in_and_a_workbook_out(page: Page, arena: RunningArena, tmp_path: Path) -> None:
    write_workbook(tmp_path / "in.xlsx", [BvtRow(original_query="蜂胶咋吃"), BvtRow(original_query="没有改写")])
    page.get_by_role("tab", name="批量").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "in.xlsx")
    expect(page.get_by_text("已改写 2 行，其中失败 1 行")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="下载结果").click()
    download.value.save_as(tmp_path / "out.xlsx")
    heading, *rows = openpyxl.load_workbook(tmp_path / "out.xlsx").active.iter_rows(values_only=True)
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["rewritten_query"] for row in table] == ["蜂胶咋吃 用法用量", None]
    assert table[0]["recall_count"] == 2 and "lacks rewritten_query" in table[1]["error"]
    (tmp_path / "broken.xlsx").write_bytes(b"no workbook")
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.xlsx")
    expect(page.get_by_text(re.compile("没有写出文件：broken.xlsx"))).to_be_visible()


def test_the_page_answers_to_its_own_name_alone(arena: RunningArena) -> None:
    assert httpx.get(arena.url, headers={"Host": "evil.example"}, trust_env=False).status_code == 400
    policy = httpx.get(arena.url, trust_env=False).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy
