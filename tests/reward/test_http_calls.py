"""JsonService over real sockets: retries, Retry-After, limits, keys. Faults: test_reward_fault_matrix.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tenacity import RetryCallState

from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.files import BadInput
from reward.services.attempts import back_off
from reward.services.http_calls import JsonService, parse_object
from reward.services.refusals import LONGEST_RETRY_AFTER, retry_after
from reward.settings.services import ServiceSettings
from tests.support.scripted_service import ScriptedService, Step, answer, status

Posted = tuple[dict[str, Any] | ServiceFailure, CallTrace]


def play(script: list[Step], ask: Callable[[JsonService, ScriptedService], Awaitable[Any]], **values: Any) -> Any:
    """What `ask` returns, given a client (settings: `values`) of a service that follows the script."""

    async def run() -> Any:
        async with ScriptedService(script) as server:
            settings = ServiceSettings.model_validate({"timeout": 2, "backoff": (0.01, 0.02), **values})
            service = JsonService(server.url, settings)
            try:
                return await ask(service, server)
            finally:
                await service.aclose()

    return asyncio.run(run())


def value_of(posted: Posted) -> dict[str, Any]:
    assert isinstance(posted[0], dict)
    return posted[0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("0.5", 0.5),
        ("86400", LONGEST_RETRY_AFTER),
        ("9" * 400, LONGEST_RETRY_AFTER),
        ("-5", 0),
        ("nan", 0),
        ("٣", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2065 07:28:00 -0000", LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_and_capped(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    in_half_a_minute = datetime.now(UTC) + timedelta(seconds=30)
    assert 28 < retry_after(format_datetime(in_half_a_minute, usegmt=True)) <= 30


def test_a_retry_after_holds_back_the_whole_service() -> None:
    async def ask(service: JsonService, server: ScriptedService) -> list[CallTrace]:
        first = asyncio.create_task(service.post("/", {"n": 1}))
        while not server.bodies:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # the 429 has arrived
        posted = [await first, await service.post("/", {"n": 2})]
        return [trace for _, trace in posted]

    retried, _ = play([status("429 No", retry_after="0.4"), answer({})], ask)
    assert retried.attempts == 2 and retried.queued > 0.2  # the back-off alone is 0.02 s at most


def test_no_slot_is_held_during_the_back_off() -> None:
    async def ask(service: JsonService, server: ScriptedService) -> list[int]:
        failing = asyncio.create_task(service.post("/", {"n": 1}))
        while not server.bodies:
            await asyncio.sleep(0.01)
        await service.post("/", {"n": 2})
        failing.cancel()
        return [body["n"] for body in server.bodies]

    order = play([status("500 No"), answer({})], ask, max_concurrency=1, backoff=(1000.0, 1000.0))
    assert order == [1, 2]


@pytest.mark.parametrize("bounds", [(2.0, 10.0), (0.5, 5.0), (3.0, 3.0), (0.0, 1.0)])
def test_a_back_off_is_never_shorter_than_its_lower_bound(bounds: tuple[float, float]) -> None:
    wait = back_off(bounds)
    for attempt in range(1, 8):
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = attempt
        drawn = [wait(state) for _ in range(200)]
        most = min(bounds[0] * 2**attempt, bounds[1])
        assert all(bounds[0] <= seconds <= max(most, bounds[0]) for seconds in drawn)
        assert bounds[0] == most or max(drawn) - min(drawn) > (most - bounds[0]) / 2  # jitter on top


def test_concurrency_is_bounded_over_all_paths_and_the_queue_goes_by_priority() -> None:
    async def ask(service: JsonService, server: ScriptedService) -> tuple[int, list[int]]:
        posts = [service.post(f"/{n % 2}", {"n": n}, priority=n // 4) for n in range(8)]
        posted = await asyncio.gather(*posts)
        assert all(value == {} for value, _ in posted)
        return server.most_at_once, [body["n"] for body in server.bodies]

    most, order = play([answer({}, after=0.02)], ask, max_concurrency=1)
    assert most == 1 and order == [0, 4, 5, 6, 7, 1, 2, 3]
    assert play([answer({}, after=0.02)], ask, max_concurrency=3)[0] == 3


def test_a_cancelled_post_leaves_its_slot_and_its_connection_to_others() -> None:
    async def ask(service: JsonService, server: ScriptedService) -> Posted:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(service.post("/", {}), 0.05)
        return await service.post("/", {})

    posted = play([answer({}, after=30)] * 5 + [answer({"ok": 1})], ask, max_concurrency=1)
    assert value_of(posted) == {"ok": 1}


def test_a_failure_says_after_how_many_attempts() -> None:
    async def ask(service: JsonService, server: ScriptedService) -> Posted:
        return await service.post("/", {})

    failure, trace = play([status("503 No")], ask, attempts=3)
    assert failure == ServiceFailure("HTTP 503: no (3 attempts)", FailureKind.SERVER_ERROR) and trace.attempts == 3


def test_a_base_url_may_have_a_path_and_the_key_travels_in_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_TEST", " secret\n")  # as it comes out of a file

    async def run() -> tuple[bytes, Posted]:
        async with ScriptedService([status("401 No", "who are you")]) as server:
            service = JsonService(server.url + "/rag/", ServiceSettings(api_key_env="KEY_OF_TEST"))
            posted = await service.post("/api/chat", {"query": "鱼油"})
            await service.aclose()
            assert server.bodies == [{"query": "鱼油"}]
            return server.headers[0], posted

    headers, (failure, _) = asyncio.run(run())
    assert headers.startswith(b"POST /rag/api/chat HTTP/1.1\r\n") and b"Authorization: Bearer secret\r\n" in headers
    assert isinstance(failure, ServiceFailure) and "who are you" in failure.reason and "secret" not in failure.reason


@pytest.mark.parametrize("key", ["", "  ", "“密钥”", "two\nlines"])
def test_a_key_that_is_none_is_named_not_printed(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("KEY_OF_TEST", key)
    with pytest.raises(BadInput, match="KEY_OF_TEST") as error:
        JsonService("http://127.0.0.1:9", ServiceSettings(api_key_env="KEY_OF_TEST"))
    assert "密钥" not in str(error.value) and "lines" not in str(error.value)


@pytest.mark.parametrize("url", ["", "rag:8000", "127.0.0.1:8000", "ftp://rag", "http://", f"http://{'a' * 64}.com"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="URL"):
        JsonService(url, ServiceSettings())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "'b' appears twice"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": %s}' % (b"9" * 5000), "digits"),
        (b"<html>  <p>hello", "<html> <p>hello"),
        (b"", "(empty)"),
        (b"3", "not a JSON object"),
    ],
)
def test_an_unreadable_answer_says_why(content: bytes, told: str) -> None:
    failure = parse_object(content)
    assert isinstance(failure, ServiceFailure) and failure.kind == FailureKind.MALFORMED and told in failure.reason


def test_an_escaped_emoji_is_read() -> None:
    assert parse_object(rb'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}
