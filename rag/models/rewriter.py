"""Which query a request is retrieved with when it brings no rewrite: the rewriter service's, or the query itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import httpx


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`failure`: why the rewriter's answer could not be used, "" when it was not asked or answered. `keyword_query`: of
    a pair the text for the keyword channel, `text` being the one for the dense channel; None where one text is both."""

    text: str
    source: Literal["given", "rewriter", "query"]
    failure: str = ""
    keyword_query: str | None = None


class Rewriter:
    """Client of `POST {url}/api/rewrite_query`, one attempt of at most `timeout` seconds: a user is waiting."""

    def __init__(self, url: str, timeout: float):
        # trust_env=False: a proxy meant for the internet must not swallow calls inside the network.
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False)
        self._timeout = timeout

    async def rewrite(
        self, query: str, history: str = "", tenant_id: str = "", user_profile: str = "", history_summary: str = ""
    ) -> Rewrite:
        """Ask the service for a rewrite of `query`; return it, or the query itself and the reason."""
        body = {
            "query": query,
            "history": history,
            "thought": "",
            "tenant_id": tenant_id,
            "user_profile": user_profile,
            "history_summary": history_summary,
        }

        def fall_back(failure: str) -> Rewrite:
            return Rewrite(query, "query", f"rewriter: {failure}")

        try:
            # httpx times each network operation; the whole call is what must end in time.
            async with asyncio.timeout(self._timeout):
                response = await self._http.post("/api/rewrite_query", json=body)
        except (TimeoutError, httpx.TimeoutException):
            return fall_back(f"no answer within {self._timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return fall_back(f"{type(error).__name__} {error}".strip())
        # An answer of another shape than the contract's counts as none.
        if response.status_code != 200:
            return fall_back(f"HTTP {response.status_code}")
        try:
            answer = response.json()
        except ValueError:
            return fall_back("answer is not JSON")
        rewritten = answer.get("rewritten_query") if isinstance(answer, dict) else None
        if not isinstance(rewritten, str) or not rewritten.strip():
            return fall_back("answer holds no rewritten_query")
        keyword_query = answer.get("keyword_query")
        if not isinstance(keyword_query, str | None):
            return fall_back("its keyword_query is no text")
        return Rewrite(rewritten.strip(), "rewriter", keyword_query=(keyword_query or "").strip() or None)

    async def aclose(self) -> None:
        await self._http.aclose()
