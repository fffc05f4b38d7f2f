"""A language model behind any OpenAI-compatible endpoint: Query2Doc, Doc2Query and answers from the material.

Query2Doc: Wang et al. 2023; Doc2Query: Nogueira et al. 2019. The prompts are in `prompts/`, their version in their
name.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from guard.service_url import ServiceUrl
from plain_text.thinking import Unthinking, thinks_unopened, without_thinking
from rag.models.completion_text import cut_at_sentence, says_unknown, split_questions
from rag.models.endpoint_embedder import NO_KEY
from rag.models.failure import BrokenOff, ModelFailure, reason

__all__ = ["UNKNOWN", "LanguageModel", "LanguageModelSettings", "ModelFailure"]

UNKNOWN = "未知"
SHORTEST_PSEUDO_DOCUMENT, PSEUDO_DOCUMENT_LENGTH = 30, 80  # characters; 60 to 80 are asked for
PSEUDO_DOCUMENT, QUESTIONS, ANSWER = "pseudo_document-v1", "questions-v1", "answer-v1"
# What servers call the end of a whole text; others are "length", "content_filter" and errors of their own.
_WHOLE = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
_PROMPTS = Path(__file__).parent / "prompts"
# What begins a chat template's control token (<|im_end|>, </s>, <｜User｜>) or a <think>; "血压<140" stays as it is.
_CONTROL = re.compile(r"<(?=[^\s\d=])")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LanguageModelSettings:
    """`url` ends in /v1. `api_key_env`: the environment variable that holds the key, if one is needed. `timeout`:
    seconds for an answer as a whole, and between the pieces of a streamed one. `disable_thinking`: sends
    `chat_template_kwargs: {enable_thinking: false}`, which servers of Qwen3-like models know and some others refuse."""

    url: ServiceUrl
    model: str
    api_key_env: str = "LLM_API_KEY"
    timeout: float = 30.0
    disable_thinking: bool = False


class LanguageModel:
    """Use it from a single event loop; close it with `aclose`. Every method may raise ModelFailure."""

    def __init__(self, settings: LanguageModelSettings):
        self._settings = settings
        self.id = f"{settings.model} ({PSEUDO_DOCUMENT}, {QUESTIONS}, {ANSWER})"
        self._client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=os.environ.get(settings.api_key_env) or NO_KEY,
            timeout=settings.timeout,
            max_retries=0,
            # A proxy meant for the internet must not swallow calls inside the network.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False),
        )
        # Whether its template opens the thinking itself, so that only the end of it is in the text.
        self._thinks_unopened = False
        self._patient_client = self._client.with_options(max_retries=2)
        self._prompts = {
            name: (_PROMPTS / f"{name}.txt").read_text(encoding="utf-8")
            for name in (PSEUDO_DOCUMENT, QUESTIONS, ANSWER)
        }

    async def pseudo_document(self, query: str, context: str, timeout: float = 0.3) -> str:
        """Write a technical note of 30 to 80 characters, one line, in which an answer to `query` could be found. It
        is one attempt of at most `timeout` seconds as a whole: a user is waiting.

        Raises:
            ModelFailure: also for a shorter note, which says no more than the query.
        """
        data = {"问题": query, "背景": context}
        try:
            text = await self._complete(PSEUDO_DOCUMENT, data, timeout, max_tokens=200)
        except BrokenOff as failure:
            text = failure.text  # it is cut below anyway
        text = " ".join(text.split())
        if len(text) < SHORTEST_PSEUDO_DOCUMENT:
            wanted = f"of {len(text)} characters, less than {SHORTEST_PSEUDO_DOCUMENT}"
            raise ModelFailure(f"{self._settings.model}: a pseudo-document {wanted}")
        return cut_at_sentence(text, PSEUDO_DOCUMENT_LENGTH)

    async def questions(self, passage: str, n: int = 5) -> list[str]:
        """Return at most `n` different questions that `passage` answers. Each time others: the model is asked to
        vary."""
        data = {"材料": passage, "数量": n}
        try:
            text = await self._complete(
                QUESTIONS, data, 3 * self._settings.timeout, patient=True, temperature=0.8, max_tokens=100 * n
            )
        except BrokenOff as failure:
            text = failure.text.rpartition("\n")[0]  # the last question may be half of one
        questions = split_questions(text, n)
        if not questions:
            raise ModelFailure(f"{self._settings.model}: wrote no question")
        return questions

    async def answer(self, query: str, context: str, passages: Sequence[str]) -> str:
        """Return the answer that `passages` hold, naming them as [1], [2] … in their order; 未知 when they hold
        none.

        Raises:
            BrokenOff: the answer is not whole.
        """
        if not passages:
            return UNKNOWN
        text = await self._complete(ANSWER, _material(query, context, passages), self._settings.timeout)
        return UNKNOWN if says_unknown(text) else text

    async def stream_answer(self, query: str, context: str, passages: Sequence[str]) -> AsyncGenerator[str, None]:
        """Yield `answer` in pieces as they come. A failure may follow pieces that were given already."""
        if not passages:
            yield UNKNOWN
            return
        held, decided = "", False
        async with aclosing(self._pieces(ANSWER, _material(query, context, passages))) as pieces:
            async for piece in pieces:
                if decided:
                    yield piece
                    continue
                # Until it is clear whether the answer is 未知, nothing is given.
                held = (held + piece).lstrip()
                if len(held) > len(UNKNOWN):
                    if says_unknown(held):
                        break
                    decided = True
                    yield held
        if decided:
            return
        if not held.strip():
            raise ModelFailure(f"{self._settings.model}: empty answer")
        yield UNKNOWN if says_unknown(held) else held

    async def aclose(self) -> None:
        await self._client.close()

    async def _complete(
        self, prompt: str, data: dict[str, Any], timeout: float, patient: bool = False, **more: Any
    ) -> str:
        """Ask for the whole text, never empty, without what the model thought aloud."""
        with self._failures(timeout):
            async with asyncio.timeout(timeout):
                client = self._patient_client if patient else self._client
                completion = await client.chat.completions.create(**self._request(prompt, data, **more))
            text, ended = completion.choices[0].message.content, completion.choices[0].finish_reason
        if not isinstance(text, str):
            raise ModelFailure(f"{self._settings.model}: empty answer")
        broken = f"{self._settings.model}: breaks off ({ended})" if ended and ended not in _WHOLE else ""
        if thinks_unopened(text):
            self._thinks_unopened = True
        elif broken and self._thinks_unopened:  # in the midst of thinking
            text = ""
        if not (text := without_thinking(text).strip()):
            raise ModelFailure(broken or f"{self._settings.model}: empty answer")
        if broken:
            raise BrokenOff(broken, text)
        return text

    async def _pieces(self, prompt: str, data: dict[str, Any]) -> AsyncGenerator[str, None]:
        timeout, thinking = self._settings.timeout, Unthinking(self._thinks_unopened)
        whole, ended = "", None
        with self._failures(timeout):
            async with asyncio.timeout(timeout):
                stream = await self._client.chat.completions.create(**self._request(prompt, data), stream=True)
        try:
            chunks = aiter(stream)
            while True:
                with self._failures(timeout):
                    async with asyncio.timeout(timeout):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    # The last chunk of some servers holds the usage and no choice.
                    text = (chunk.choices[0].delta.content or "") if chunk.choices else ""
                    ended = (chunk.choices[0].finish_reason if chunk.choices else None) or ended
                    piece = thinking.feed(text)
                    whole += text
                if piece:
                    yield piece
            # A stream that says nothing of its end was cut: a proxy's timeout, a server that died.
            broken = ended not in _WHOLE
            if (rest := thinking.finish()) and not (broken and self._thinks_unopened):
                yield rest
            if broken and whole:
                raise ModelFailure(f"{self._settings.model}: breaks off ({ended or 'the stream ended early'})")
        finally:
            self._thinks_unopened = self._thinks_unopened or thinks_unopened(whole)
            await stream.close()

    def _request(self, prompt: str, data: dict[str, Any], temperature: float = 0.0, **more: Any) -> dict[str, Any]:
        if self._settings.disable_thinking:
            more["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
        messages = [{"role": "system", "content": self._prompts[prompt]}, {"role": "user", "content": _as_data(data)}]
        return {"model": self._settings.model, "messages": messages, "temperature": temperature, **more}

    @contextmanager
    def _failures(self, timeout: float) -> Iterator[None]:
        """Turn what the client and a malformed answer raise into ModelFailure."""
        model = self._settings.model
        try:
            yield
        except (TimeoutError, openai.APITimeoutError):
            raise ModelFailure(f"{model}: no answer within {timeout:g} s") from None
        except openai.APIStatusError as error:
            raise ModelFailure(f"{model}: HTTP {error.status_code}") from None
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise ModelFailure(f"{model}: {reason(error)}") from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelFailure(f"{model}: malformed answer ({reason(error)})") from None


def _material(query: str, context: str, passages: Sequence[str]) -> dict[str, Any]:
    numbered = [{"编号": number, "内容": passage} for number, passage in enumerate(passages, 1)]
    return {"问题": query, "背景": context, "材料": numbered}


def _as_data(data: dict[str, Any]) -> str:
    """Write one JSON object in which nothing can end its string or pass for a control token of the chat template."""
    text = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace").decode()
    return _CONTROL.sub(r"\\u003c", text)
