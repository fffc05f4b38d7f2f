"""The page in a real headless Chromium, on the real service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, expect

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Clicks
from tests.support.browser import careful_page, chromium, needs_chromium
from tests.support.rag_server import HEALTH, add_knowledge_base, serving

pytestmark = needs_chromium

INJECTION = "蜂胶<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>加粗</b>"
PASSAGES = {
    "fish-1": "鱼油建议每日两粒，随餐服用，温水送服。",
    "fish-2": "孕妇和哺乳期妇女食用鱼油前请先咨询医生。",
    "fish-3": "鱼油与华法林等抗凝药物不宜同时食用，每日请勿超量。",
    "calcium-1": "钙片每日一片，餐后服用，三岁以下儿童不建议食用。",
    "calcium-2": "每日服用钙片的孕妇请先咨询医生，服用鱼油的也一样。",
    "storage": "请置于阴凉干燥处，避免阳光直射，开封后三个月内服用完。",
    '<b id="owned">蜂胶</b>': INJECTION,
}
QUERY = "孕妇每日服用鱼油"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("page") / "data"
    for tenant in ("fivedoctors", "chengla"):
        add_knowledge_base(data, tenant, PASSAGES)
    add_knowledge_base(data, "fivedoctors", HEALTH, "health")
    catalogue = Catalogue(data)
    catalogue.create_knowledge_base("fivedoctors", "empty")
    catalogue.close()
    shutil.copytree(data, data.with_name("spare"))
    return data


@pytest.fixture
def spare(folder: Path) -> Path:
    """A copy that the module's server does not hold open."""
    return folder.with_name("spare")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with careful_page(browser) as opened:
        yield opened


def open_page(page: Page, url: str, tenant: str = "fivedoctors", kb_name: str = "default") -> None:
    page.goto(url)
    page.get_by_label("知识库").select_option(f"{tenant} / {kb_name}")


def is_search(response: Response) -> bool:
    return response.url.endswith("/api/chat/general_rag")


def answers(responses: list[Response]) -> dict[str, dict[str, Any]]:
    """What the service answered each column; only A's request has every channel on."""
    sent = [(response.request.post_data_json, response.json()["data"]) for response in responses]
    return {"A" if all(body["channels"].values()) else "B": data for body, data in sent}


def search(page: Page, query: str) -> dict[str, dict[str, Any]]:
    """Asks, waits for both columns, and returns their answers."""
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response) if is_search(response) else None)
    page.get_by_label("客户的问题").fill(query)
    page.get_by_role("button", name="搜索").click()
    for name in "AB":
        expect(column(page, name).locator(".took")).not_to_be_empty()
        expect(column(page, name)).not_to_have_attribute("aria-busy", "true")
    return answers(responses)


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=f"设置 {name}")


def shown_ids(page: Page, name: str) -> list[str]:
    return column(page, name).locator(".hit .doc-id").all_inner_texts()


def test_both_columns_show_the_hits_as_answered(page: Page, url: str) -> None:
    open_page(page, url)
    for name, data in search(page, QUERY).items():
        assert shown_ids(page, name) == [hit["doc_id"] for hit in data["recall"]] != []
        for place, hit in enumerate(data["recall"], start=1):
            item = column(page, name).locator(".hit").nth(place - 1)
            assert item.locator(".rank").inner_text() == str(place)
            assert item.locator(".content").inner_text() == hit["content"]
            assert item.locator(".score-value").all_inner_texts() == [
                f"{hit['score']:.3f}",
                f"{hit['reranker_score']:.3f}",
            ]
            chips = " ".join(item.locator(".channel").all_inner_texts())
            for found in hit["channels"].values():
                assert f"#{found['rank']}" in chips and f"{found['score']:.3f}" in chips
        assert data["rewritten_query"] in column(page, name).locator(".notes").inner_text()


def test_a_switch_changes_the_request_and_the_ranks_of_its_column_only(page: Page, url: str) -> None:
    open_page(page, url)
    search(page, QUERY)
    before_a, before_b = (column(page, name).locator(".channel").all_inner_texts() for name in "AB")
    with page.expect_response(is_search) as answered:
        column(page, "A").get_by_role("switch", name="dense").uncheck(force=True)
    body = answered.value.request.post_data_json
    assert body["channels"] == {
        "dense": False,
        "keyword": True,
        "doc2query": True,
        "query2doc": True,
        "rerank": True,
        "rewrite": True,
    }
    expect(column(page, "A").locator(".notes")).to_contain_text("已关闭：语义")
    recall = answered.value.json()["data"]["recall"]
    assert shown_ids(page, "A") == [hit["doc_id"] for hit in recall]
    assert {tuple(hit["channels"]) for hit in recall} == {("keyword",)}
    assert column(page, "A").locator(".channel").all_inner_texts() != before_a
    assert column(page, "B").locator(".channel").all_inner_texts() == before_b


def test_each_hit_says_how_it_moved_against_the_other_column(page: Page, url: str) -> None:
    open_page(page, url, kb_name="health")
    page.get_by_label("条数").fill("12")
    search(page, "孕妇儿童吃维生素D前请咨询医生")
    for name in ("dense", "keyword"):
        side = "A" if name == "keyword" else "B"
        with page.expect_response(is_search):
            column(page, side).get_by_role("switch", name=name).uncheck(force=True)
        expect(column(page, side)).not_to_have_attribute("aria-busy", "true")
    a, b = shown_ids(page, "A"), shown_ids(page, "B")
    moves = {there - here for here, key in enumerate(a) if key in b for there in [b.index(key)]}
    assert min(moves) < 0 < max(moves) and set(a) != set(b)
    for own, name, theirs, other in ((a, "A", b, "B"), (b, "B", a, "A")):
        wanted = []
        for rank, key in enumerate(own, start=1):
            there = theirs.index(key) + 1 if key in theirs else 0
            arrow = "＝" if there == rank else f"↑{there - rank}" if there > rank else f"↓{rank - there}"
            wanted.append(f"{other} #{there} {arrow}" if there else f"{other} 未列出")
        expect(column(page, name).locator(".move")).to_have_text(wanted)


def test_a_thumb_reaches_the_clicks_of_the_catalogue(page: Page, url: str, folder: Path) -> None:
    open_page(page, url)
    page.locator("summary").click()
    page.get_by_label("改写后的问题").fill("鱼油 孕妇 用量")
    page.get_by_label("上下文").fill("用户: 我怀孕三个月了")
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response) if is_search(response) else None)
    data = search(page, "能吃吗")["B"]
    assert data["rewrite_source"] == "given"
    asked = next(one for one in responses if not one.request.post_data_json["channels"]["rewrite"])
    assert asked.request.post_data_json["history"] == "用户: 我怀孕三个月了"
    second = column(page, "B").locator(".hit").nth(1)
    second.get_by_role("button", name="没用").click()
    expect(second.locator(".stored")).to_have_text("已记录：没用")
    expect(second.get_by_role("button", name="没用")).to_have_attribute("aria-pressed", "true")
    catalogue = Catalogue(folder)
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    assert kb is not None
    (click,) = [one for one in Clicks(catalogue).read(kb.id) if one.query == "能吃吗"]
    catalogue.close()
    assert (click.passage_key, click.clicked, click.position) == (data["recall"][1]["doc_id"], False, 2)
    assert (click.rewritten_query, click.request_id) == ("鱼油 孕妇 用量", asked.headers["x-request-id"])


def test_markup_in_a_passage_is_shown_as_text(page: Page, url: str) -> None:
    open_page(page, url)
    search(page, "蜂胶<i>加粗</i>")
    item = column(page, "A").locator(".hit").first
    expect(item.locator(".content")).to_have_text(INJECTION)
    assert item.locator(".doc-id").inner_text() == '<b id="owned">蜂胶</b>'
    assert item.locator("mark").all_inner_texts() == ["蜂胶", "加粗"]
    assert page.locator(".columns :is(img, script, b b, i, #owned)").count() == 0
    assert page.title() == "检索对比台"


def test_the_words_of_the_query_are_marked(page: Page, url: str) -> None:
    open_page(page, url)
    search(page, QUERY)
    item = column(page, "A").locator(".hit").filter(has=page.get_by_text("calcium-2", exact=True))
    assert item.locator("mark").all_inner_texts() == ["每日服用", "孕妇", "服用鱼油"]


def test_channels_that_cannot_work_say_why(page: Page, url: str) -> None:
    open_page(page, url)
    search(page, QUERY)
    warnings = column(page, "A").locator(".warning")
    expect(warnings).to_contain_text(["问题键不可用", "没有配置大模型", "没有配置重排模型", "没有配置改写模型"])
    expect(column(page, "B").locator(".warning")).to_have_count(0)
    expect(column(page, "B").locator(".notes")).to_contain_text("已关闭：问题键、扩写、精排、改写")


def test_nothing_found_is_said(page: Page, url: str) -> None:
    open_page(page, url, kb_name="empty")
    search(page, QUERY)
    expect(column(page, "A").locator(".message")).to_contain_text("没有命中")


def test_a_service_that_is_gone_is_said_for_searches_and_thumbs(page: Page, spare: Path) -> None:
    with serving(spare) as address:
        open_page(page, address)
        search(page, QUERY)
    first = column(page, "B").locator(".hit").first
    first.get_by_role("button", name="有用").click()
    expect(first.locator(".stored")).to_contain_text("没有记录：连不上服务")
    page.get_by_role("button", name="搜索").click()
    for name in "AB":
        expect(column(page, name).get_by_role("alert")).to_contain_text("连不上服务")
        expect(column(page, name).locator(".hit")).to_have_count(0)


def test_with_keys_a_key_opens_its_own_knowledge_bases_and_is_kept_in_the_session_only(page: Page, spare: Path) -> None:
    catalogue = Catalogue(spare)
    key = AccessKeys(catalogue).create("chengla", "search", "page")
    catalogue.close()
    with serving(spare, keys=True) as address:
        page.goto(address)
        expect(page.locator("#service")).to_contain_text("请填访问密钥")
        page.get_by_label("访问密钥").fill("wrong")
        page.get_by_label("访问密钥").press("Tab")
        expect(page.locator("#service")).to_have_class("service failed")
        page.get_by_label("访问密钥").fill(key)
        page.get_by_label("访问密钥").press("Tab")
        expect(page.get_by_label("知识库").locator("option")).to_have_text(["chengla / default"])
        data = search(page, QUERY)
        assert shown_ids(page, "A") == [hit["doc_id"] for hit in data["A"]["recall"]] != []
        page.reload()
        expect(page.get_by_label("知识库").locator("option")).to_have_text(["chengla / default"])
        assert page.evaluate("[sessionStorage.getItem('key'), localStorage.length, document.cookie]") == [key, 0, ""]
        assert key not in page.url


def test_it_is_used_by_keyboard_alone(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.get_by_label("知识库").locator("option")).to_have_count(4)
    page.get_by_label("知识库").press("f")
    page.get_by_label("客户的问题").focus()
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expect(column(page, "B").locator(".hit").first).to_be_visible()
    switch = column(page, "A").get_by_role("switch", name="keyword")
    switch.focus()
    assert "solid" in switch.evaluate("box => getComputedStyle(box.nextElementSibling).outlineStyle")
    with page.expect_response(is_search) as answered:
        page.keyboard.press("Space")
    assert answered.value.request.post_data_json["channels"]["keyword"] is False
    thumb = column(page, "B").locator(".hit").first.get_by_role("button", name="有用")
    thumb.focus()
    page.keyboard.press("Enter")
    expect(column(page, "B").locator(".stored").first).to_have_text("已记录：有用")
    expect(thumb).to_be_focused()


def test_it_fits_a_phone(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    open_page(page, url)
    search(page, QUERY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [column(page, name).bounding_box() for name in "AB"]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] > boxes[0]["x"]
    column(page, "B").locator(".hit").first.get_by_role("button", name="有用").click()
    expect(column(page, "B").locator(".stored").first).to_have_text("已记录：有用")
