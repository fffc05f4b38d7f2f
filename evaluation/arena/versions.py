"""The versions that compete: recorded rewrites of an evaluation, rewriting services, models behind a chat API."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.prompt import build_messages
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_line, normalise_lines
from evaluation.summary import REWRITES_FILE
from evaluation.systems import MAX_NEW_TOKENS, ORIGINAL
from guard.service_url import why_unfit
from plain_text.thinking import without_thinking
from reward.records.call import FailureKind, ServiceFailure
from reward.records.files import BadInput, read_jsonl
from reward.records.sample import Candidates, Sample
from reward.services.baseline_client import BaselineClient
from reward.services.http_calls import JsonService
from reward.services.refusals import refusal_in
from reward.settings.recipe import TenantSettings
from reward.settings.services import BaselineSettings, ServiceSettings

DEPLOYED = "baseline"
NOT_RECORDED = "no rewrite of this query is recorded"


class Version(ABC):
    """One rewriter under the name that the drop-down shows. Use it from one event loop; close it with `aclose`."""

    name: str

    @abstractmethod
    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        """Return the rewrite, not blank, or why there is none."""

    def knows(self, sample: Sample) -> bool:
        """Say whether there can be a rewrite of this sample."""
        return True

    async def aclose(self) -> None:
        return None


class Original(Version):
    """The query as it is: a rewriter that cannot beat it is worth nothing."""

    name = ORIGINAL

    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        return sample.original_query


class Recorded(Version):
    """The rewrites of one system that an evaluation has recorded."""

    def __init__(self, name: str, rewrites: Mapping[tuple[str, str], str]):
        self.name, self._rewrites = name, rewrites

    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        rewrite = self._rewrites.get(_key(sample.original_query, sample.context.text), "")
        return rewrite if rewrite.strip() else ServiceFailure(NOT_RECORDED, FailureKind.NOT_CONFIGURED)

    def knows(self, sample: Sample) -> bool:
        return bool(self._rewrites.get(_key(sample.original_query, sample.context.text), "").strip())


class Service(Version):
    """A live rewriter behind `POST {url}/api/rewrite_query` (docs/contracts.md)."""

    def __init__(self, name: str, settings: BaselineSettings, tenant_id: str):
        self.name = name
        self._client = BaselineClient(settings, tenant_id)

    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        answer, _ = await self._client.rewrite(sample.model_copy(update={"candidates": Candidates()}))
        return answer

    async def aclose(self) -> None:
        await self._client.aclose()


class ChatModel(Version):
    """A model behind an OpenAI-compatible chat API, asked with the prompt that it was trained on.

    Thinking is switched off as in training. A server that refuses that switch is asked without it.
    """

    def __init__(self, name: str, url: str, model: str, tenant: TenantSettings, api_key_env: str | None = None):
        self.name, self._model, self._tenant = name, model, tenant
        self._service = JsonService(url, ServiceSettings(timeout=60.0, api_key_env=api_key_env))
        self._switch: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}

    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        body = {
            "model": self._model,
            "messages": build_messages(sample, self._tenant),
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        answer, _ = await self._service.post("/chat/completions", body | self._switch)
        if self._switch and isinstance(answer, ServiceFailure) and answer.kind is FailureKind.REJECTED:
            answer, _ = await self._service.post("/chat/completions", body)
            if not isinstance(answer, ServiceFailure):
                self._switch = {}
        return answer if isinstance(answer, ServiceFailure) else self._read(answer)

    def _read(self, answer: dict[str, Any]) -> str | ServiceFailure:
        try:
            text = without_thinking(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError):
            return refusal_in(answer, "answer lacks choices[0].message.content")
        rewrite = deidentify_text(normalise_line(text), self._tenant.deidentify)[0]
        return rewrite or ServiceFailure("the model wrote no rewrite", FailureKind.MALFORMED)

    async def aclose(self) -> None:
        await self._service.aclose()


def build_versions(
    tenant: TenantSettings,
    runs: Sequence[str] = (),
    services: Sequence[str] = (),
    chats: Sequence[str] = (),
    chat_keys: Sequence[str] = (),
) -> dict[str, Version]:
    """Build the versions that the options name: name → version, in the order of the drop-down.

    Args:
        runs: folders that `evaluation.compare` wrote, or NAME=FOLDER; a version `<folder's name>/<system>` each system.
        services: NAME=URL of rewriting services. The tenant's baseline service is one without being named.
        chats: NAME=URL#MODEL of chat APIs; the URL ends in /v1.
        chat_keys: NAME=VARIABLE: the environment variable that holds a chat API's key.

    Raises:
        BadInput: an option is of another form, two versions share a name, a file or a key is missing, or there are
            fewer than two versions.
    """
    built: list[Version] = [Original()]
    for text in runs:
        named = re.fullmatch(r"([\w.-]+)=(.+)", text)
        folder = Path(named[2] if named else text)
        built += _recorded(folder, named[1] if named else folder.resolve().name)
    if tenant.baseline.url:
        built.append(Service(DEPLOYED, tenant.baseline, tenant.tenant_id))
    for name, url in (_named("--service", text) for text in services):
        built.append(Service(name, BaselineSettings(url=_checked("--service", url)), tenant.tenant_id))
    built += [ChatModel(name, url, model, tenant, key) for name, url, model, key in parse_chats(chats, chat_keys)]
    versions: dict[str, Version] = {}
    for version in built:
        if version.name in versions:
            raise BadInput(f"two versions are named {version.name!r}: give one another name, NAME=…")
        versions[version.name] = version
    if len(versions) < 2:
        raise BadInput("nothing to compare: name a version with --run, --service or --chat")
    return versions


def parse_chats(chats: Sequence[str], chat_keys: Sequence[str]) -> list[tuple[str, str, str, str | None]]:
    """Return name, URL, model and the variable of the key of each chat API that the options name.

    Raises:
        BadInput: an option is of another form, or a key belongs to none of them.
    """
    keys = dict(_named("--chat-key", text) for text in chat_keys)
    found = []
    for name, address in (_named("--chat", text) for text in chats):
        url, _, model = _checked("--chat", address).partition("#")
        if not model:
            raise BadInput(f"--chat {name}={url}: expected NAME=URL#MODEL")
        found.append((name, url, model, keys.pop(name, None)))
    if keys:
        raise BadInput(f"--chat-key {next(iter(keys))}: there is no --chat of that name")
    return found


def _recorded(folder: Path, name: str) -> list[Version]:
    """Read the systems of a run. A rewrite that failed is not recorded.

    Raises:
        BadInput: the file is missing, or a line lacks a field.
    """
    file = folder / REWRITES_FILE
    if not file.is_file():
        raise BadInput(f"{file}: no such file; run evaluation.compare first")
    systems: dict[str, dict[tuple[str, str], str]] = {}
    for row, line in read_jsonl(file):
        try:
            key = _key(line["query"], line["context"])
            for system, answer in line["systems"].items():
                if system != ORIGINAL and answer["rewrite"]:
                    systems.setdefault(system, {})[key] = str(answer["rewrite"])
        except (KeyError, TypeError, AttributeError):
            raise BadInput(f"{file}: row {row}: expected query, context and systems") from None
    return [Recorded(f"{name}/{system}", rewrites) for system, rewrites in systems.items()]


def _key(query: str, context: str) -> tuple[str, str]:
    return normalise_line(query), normalise_lines(context)


def _named(option: str, text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not re.fullmatch(r"[\w.-]+", name) or not value:
        raise BadInput(f"{option} {json.dumps(name, ensure_ascii=False)}: expected NAME=…, the name without blanks")
    return name, value


def _checked(option: str, address: str) -> str:
    if problem := why_unfit(address):
        raise BadInput(f"{option}: {problem}")
    return address
