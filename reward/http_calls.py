"""One way to call a JSON service: bounded concurrency, retries with jittered back-off, failures as values."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from reward.records import BadInput
from reward.settings import ServiceSettings


@dataclass(frozen=True)
class ServiceFailure:
    """A call that failed after its retries, and why. Never a score."""

    reason: str


class _Retryable(Exception):
    """Worth another attempt: time-out, connection trouble, 429 or 5xx."""


class JsonService:
    """POSTs JSON to one base URL. Use it from a single event loop; close it with `aclose`."""

    def __init__(self, url: str, settings: ServiceSettings):
        headers = {}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if not key:
                raise BadInput(f"environment variable {settings.api_key_env} (API key of {url}) is not set")
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx.Limits(
            max_connections=settings.max_concurrency, max_keepalive_connections=settings.max_concurrency
        )
        # trust_env=False: a proxy meant for the internet must not swallow calls to services of one's own network.
        self._http = httpx.AsyncClient(
            base_url=url, timeout=settings.timeout, limits=limits, headers=headers, trust_env=False
        )
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._settings = settings
        self.calls = 0

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | ServiceFailure:
        """The answer's JSON object, or the failure that remained after `attempts` tries.

        429, 5xx, time-outs and connection errors are retried; any other 4xx and an answer that is no JSON object
        fail at once.
        """
        first, longest = self._settings.backoff
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._settings.attempts),
            wait=wait_random_exponential(multiplier=first, max=longest),
            retry=retry_if_exception_type(_Retryable),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    async with self._slots:
                        return await self._post_once(path, body)
        except RetryError as error:
            return ServiceFailure(f"{error.last_attempt.exception()} after {error.last_attempt.attempt_number} tries")
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _post_once(self, path: str, body: dict[str, Any]) -> dict[str, Any] | ServiceFailure:
        self.calls += 1
        try:
            response = await self._http.post(path, json=body)
        except httpx.HTTPError as error:  # transport trouble, and an answer that cannot be decoded
            raise _Retryable(f"{type(error).__name__} {error}".strip()) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise _Retryable(f"HTTP {response.status_code}")
        if response.status_code != 200:
            return ServiceFailure(f"HTTP {response.status_code}: {response.text[:200]}")
        try:
            answer = response.json()
        except ValueError:
            return ServiceFailure("answer is not JSON")
        return answer if isinstance(answer, dict) else ServiceFailure("answer is not a JSON object")

    async def aclose(self) -> None:
        await self._http.aclose()
