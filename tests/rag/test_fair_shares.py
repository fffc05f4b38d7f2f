"""Tenants take turns: whose work is done when, and what one request may cost."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.requests import Request

from rag.catalogue.access_keys import Access
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Click, Clicks
from rag.catalogue.database import old_sqlite
from rag.catalogue.holdings import LimitReached
from rag.documents.read_documents import read_documents
from rag.documents.records import Document, IngestError, Passage
from rag.documents.token_blobs import token_blobs
from rag.fair_shares import REST, FairShares
from rag.service.read_request import SHORT_BODY, Understood
from rag.service.request_log import RequestRecord
from rag.settings import ServiceSettings
from tests.support.rag_server import REFUNDS, add_knowledge_base, post, recall, serving
from tests.support.raw_http import head

KBS = "/api/tenants/chengla/knowledge_bases"
DOCUMENTS = f"{KBS}/faq/documents/"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fair") / "data"
    add_knowledge_base(folder, "chengla", REFUNDS, "faq")
    limits = {"max_knowledge_bases": 3, "max_clicks": 2}
    with serving(folder, ServiceSettings.model_validate({"default": limits})) as address:
        yield address


def turns(shares: FairShares, asked: list[str]) -> list[str]:
    """Return in which order what the tenants ask for at once is done; each piece of work takes a while."""
    done: list[str] = []

    async def work(tenant: str) -> None:
        async with shares.place(tenant):
            await asyncio.sleep(0.002)
            done.append(tenant)

    async def all_at_once() -> None:
        await asyncio.gather(*map(work, asked))

    asyncio.run(all_at_once())
    return done


def test_a_tenant_that_asks_little_is_next_however_much_another_asks() -> None:
    assert turns(FairShares(1), [*["greedy"] * 20, "modest", "modest"]).index("modest") == 1
    assert [*"gmgm", *["g"] * 18] == [name[0] for name in turns(FairShares(1), [*["greedy"] * 20, "modest", "modest"])]


def test_one_tenant_never_has_all_places() -> None:
    most = 0
    busy: set[int] = set()

    async def work(shares: FairShares, number: int) -> None:
        nonlocal most
        async with shares.place("greedy"):
            busy.add(number)
            most = max(most, len(busy))
            await asyncio.sleep(0)
            busy.remove(number)

    async def all_at_once() -> None:
        shares = FairShares(2)
        await asyncio.gather(*(work(shares, number) for number in range(10)))

    asyncio.run(all_at_once())
    assert most == 1


def test_a_failure_and_a_cancellation_give_the_place_back() -> None:
    async def main() -> None:
        shares = FairShares(1, rest=1.0)
        with pytest.raises(ValueError):
            async with shares.place("a"):
                raise ValueError
        async with shares.place("b"):
            waiting = asyncio.create_task(shares.place("a").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        async with shares.place("a"):
            pass

    asyncio.run(asyncio.wait_for(main(), 20))


def test_work_in_a_thread_rests_while_others_are_active() -> None:
    shares = FairShares(1, REST)
    assert shares.rest_after("a", 0.5) == 0
    turns(shares, ["a"])
    assert shares.rest_after("a", 0.5) == 0
    turns(shares, ["b"])
    assert shares.rest_after("a", 0.5) == 0.5 * REST
    turns(shares, ["a"])
    assert shares.rest_after("a", 0.5) == 0.5 * REST


HOSTILE_TEXTS = """
"赵" * 60_000, "鱼" * 60_000, "赵a" * 30_000, "赵#" * 30_000, "㐀" * 60_000, "鱼" + "\\u0301" * 60_000,
"e" + "\\u0301\\u0323" * 30_000, "\\ufdfa" * 10_000, "a-" * 50_000, "1," * 50_000, "a1" * 50_000, "1." * 50_000
"""


def test_no_text_takes_quadratic_time() -> None:
    """Any one of them took longer than the processor time that all have here."""
    program = (
        "import resource\nfrom rag.documents.tokenizer import tokenize\n"
        "from rag.models.embedder import embedder_maker\n"
        "from rag.service.answer_routes import cited\nresource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        f"for text in ({HOSTILE_TEXTS}): tokenize(text)\n"
        "for text in ('[' + ' ' * 60_000, '[1' + ' ' * 60_000, '[1†' * 20_000, '[1,' * 20_000, '[材料' * 20_000):\n"
        "    cited(text, 5)\n"
        "embedder_maker('hashing').fit(['鱼' + '\\u0301' * 60_000])\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def rows(*rows: dict[str, object]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


HOSTILE_FILES = {
    "a long passage": ("a.jsonl", rows({"_id": "a", "text": "鱼" * 20_001})),
    "a longer one": ("a.jsonl", rows({"_id": "a", "text": "鱼" * 100_001})),
    "marks": ("a.jsonl", rows({"_id": "a", "text": "鱼" + "\u0301" * 120_000})),
    "a long question": ("a.jsonl", rows({"_id": "a", "text": "鱼", "questions": ["问" * 4001]})),
    "many questions": ("a.jsonl", rows({"_id": "a", "text": "鱼", "questions": ["问"] * 1001})),
    "a long book": ("a.txt", "鱼油。\n\n".encode() * 5001),
    "a long name": ("a" * 513 + ".txt", b"a"),
}


@pytest.mark.parametrize("shape", HOSTILE_FILES)
def test_a_document_that_would_stall_others_is_refused_in_one_line(url: str, shape: str) -> None:
    name, content = HOSTILE_FILES[shape]
    answer = httpx.put(url + DOCUMENTS + name, content=content, timeout=120, trust_env=False)
    assert answer.status_code == 422 and len(answer.json()["detail"]) < 500, answer.text
    assert recall(url, tenant_id="chengla", kb_name="faq", query="课程")[0]["doc_id"] == "f1"


@pytest.mark.parametrize(
    "body",
    [
        {"history": [{"role": "user", "content": "a"}] * 1001},
        {"history": [{"role": "user", "content": [{"text": "a"}] * 1001}]},
        {"history": [{"role": "user", "content": json.loads("[" * 100 + "]" * 100)}]},
        {"history": "鱼" * 100_001},
        {"user_profile": "鱼" * 100_001},
        {"history_summary": "鱼" * 100_001},
        {"unknown": [[]] * 100_000},
        {"unknown": [{}] * 20_001},
        {"unknown": [0] * 50_000},
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_request_has_bounded_parts(url: str, body: dict[str, object]) -> None:
    answer = post(url, query="课程", tenant_id="chengla", kb_name="faq", **body)
    assert answer.status_code == 422 and len(answer.text) < 300


def test_long_bodies_are_read_by_turns_of_their_tenants() -> None:
    turns = FairShares(1, REST)

    def body_of(tenant: str, length: int) -> Understood:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": json.dumps({"query": "a" * length}).encode()}

        record = RequestRecord("r", Access(1, tenant, "search"))
        return Understood(Request({"type": "http", "headers": [], "state": {"record": record}}, receive), turns)

    async def read() -> None:
        async with turns.place("chengla"):
            long = asyncio.create_task(body_of("chengla", SHORT_BODY).json())
            assert await body_of("chengla", 10).json() == {"query": "a" * 10}
            await asyncio.sleep(0.05)
            assert not long.done()
        assert await long == {"query": "a" * SHORT_BODY}

    asyncio.run(read())


@pytest.mark.parametrize(
    "condition",
    [
        {"name": ["title"] * 21, "comparison_operator": "is", "value": "a"},
        {"name": "title", "comparison_operator": "in", "value": ["a"] * 51},
        {"name": "title", "comparison_operator": "in", "value": "a," * 501},
    ],
    ids=str,
)
def test_a_condition_of_dify_has_bounded_parts(url: str, condition: dict[str, object]) -> None:
    asked = {"knowledge_id": "chengla/faq", "query": "课程", "retrieval_setting": {"top_k": 1}}
    for conditions in ([condition], [{"name": "title", "comparison_operator": "empty"}] * 21):
        answer = post(url, "/retrieval", **asked, metadata_condition={"conditions": conditions})
        assert answer.status_code == 400 and answer.json()["error_code"] == 400


def test_knowledge_bases_and_clicks_are_limited(url: str) -> None:
    made = [post(url, KBS, name=f"kb{n}").status_code for n in range(4)]
    assert made == [201, 201, 409, 409] and post(url, KBS, name="kb0").status_code == 409
    click = {"tenant_id": "chengla", "kb_name": "faq", "query": "课程", "doc_id": "f1", "clicked": True}
    assert [post(url, "/feedback", **click).status_code for _ in range(3)] == [204, 204, 409]


def test_limits_count_what_is_stored_within_the_transaction(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    kb, other = (catalogue.create_knowledge_base("t", name, most=2).id for name in "ab")
    with pytest.raises(LimitReached):
        catalogue.create_knowledge_base("t", "c", most=2)
    catalogue.put_documents(other, [Document("x", (Passage("x", "一", ("问", "题")),))], most_points=6)
    two = [Document(name, (Passage(name, name, ("问",)),)) for name in "yz"]
    with pytest.raises(LimitReached, match="may hold 6"):  # 3 held, and 4 more
        catalogue.put_documents(kb, two, most_points=6)
    assert not catalogue.documents(kb) and catalogue.put_documents(kb, two[:1], most_points=6).added == 1
    assert catalogue.put_documents(kb, two[:1], most_points=1).unchanged == 1  # nothing more is stored
    clicks = Clicks(catalogue)
    clicks.record(Click(kb, "q", "", "y", True), most=1)
    with pytest.raises(LimitReached):
        clicks.record(Click(kb, "q", "", "y", True), most=1)
    catalogue.close()


def test_tokens_are_counted_before_the_catalogue_is_held(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    kb = catalogue.create_knowledge_base("t", "a").id
    texts = [chr(0x4E00 + n) * 2000 for n in range(20)]
    putting = threading.Thread(
        target=catalogue.put_documents, args=(kb, [Document(text[0], (Passage(text[0], text),)) for text in texts])
    )
    other = sqlite3.connect(tmp_path / "catalogue.sqlite", timeout=0, isolation_level=None)
    putting.start()
    free = held = 0
    while putting.is_alive():
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            free += 1
        except sqlite3.OperationalError:
            held += 1
        putting.join(0.005)
    other.close()
    catalogue.close()
    assert free > 2 * held


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
def test_a_large_file_is_read_apart_to_the_same_documents(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = "鱼油每日两粒，随餐服用。"
    if name == "a.jsonl":
        documents = ({"_id": f"d{n}", "text": f"第{n}条：{text}", "questions": ["问"]} for n in range(6000))
        path.write_bytes(rows(*documents))
    else:
        path.write_text("\n\n".join(f"# 第{n}节\n\n{text}" for n in range(6000)), encoding="utf-8")
    apart, here = list(read_documents(path, name, apart=True)), list(read_documents(path, name))
    assert apart == here
    counted = [passage for document in apart for passage in document.passages if passage.tokens]
    assert counted and all(passage.tokens == token_blobs(passage.content) for passage in counted[:20])


def test_an_old_sqlite_is_named() -> None:
    assert "3.40.1 is older than 3.51.3" in old_sqlite((3, 40, 1)) and "3.51.2" in old_sqlite((3, 51, 2))
    assert not old_sqlite((3, 51, 3)) and not old_sqlite((4, 0, 0))


def test_a_reader_that_sends_no_sound_tokens_is_refused(tmp_path: Path) -> None:
    from rag.documents.token_blobs import TokenBlobs

    sound = token_blobs("鱼油鱼油")
    assert sound.is_sound()
    for wrong in (
        TokenBlobs(sound.token_ids[:-1], sound.counts, sound.total),
        TokenBlobs(sound.token_ids, sound.counts[:-2], sound.total),
        TokenBlobs(sound.token_ids[::-1], sound.counts, sound.total),
        TokenBlobs(sound.token_ids, sound.counts, sound.total + 1),
        TokenBlobs(sound.token_ids * 2, sound.counts * 2, 2 * sound.total),
    ):
        assert not wrong.is_sound()
    with pytest.raises(IngestError, match="is empty"):
        list(read_documents(_file(tmp_path, b"\n" * 70_000), "a.txt", apart=True))


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "a.txt"
    path.write_bytes(content)
    return path


def test_an_upload_that_nobody_waits_for_is_not_read(url: str) -> None:
    """Its tenant's earlier upload is still being read when its client leaves."""
    address = httpx.URL(url)
    slow = rows(*({"_id": f"slow{n}", "text": chr(0x4E00 + n) * 3000} for n in range(60)))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.put, f"{url}{DOCUMENTS}slow.jsonl", content=slow, timeout=120, trust_env=False)
        while not any("reader_process" in " ".join(child.cmdline()) for child in psutil.Process().children()):
            time.sleep(0.01)
        with socket.create_connection((address.host, address.port), timeout=30) as leaving:
            body = rows(*({"_id": f"gone{n}", "text": "鱼" * 3000} for n in range(60)))
            leaving.sendall(head("PUT", f"{DOCUMENTS}gone.jsonl", f"Content-Length: {len(body)}") + body)
            time.sleep(0.2)
        assert first.result().status_code == 201
    last = httpx.put(f"{url}{DOCUMENTS}last.txt", content=b"a", timeout=120, trust_env=False)  # behind both
    assert last.status_code == 201
    listed = httpx.get(url + DOCUMENTS.rstrip("/"), params={"limit": 1000}, trust_env=False).json()["documents"]
    assert not [row["name"] for row in listed if row["name"].startswith("gone")]
