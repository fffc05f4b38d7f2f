"""Ask a chat model for rewrites, each question once ever: answers are kept in the ledger."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from pathlib import Path
from string import Template

from data_prep.prompt import SEPARATOR, TEMPLATES, build_messages
from evaluation.rewriters.prompted_profile import PromptedSettings
from guard.personal.masking import mask_message
from reward.judge.chat_api import ChatApi
from reward.judge.costs import cost_bound, cost_cny, token_bound
from reward.judge.protocol import Parsed, Question, request_body
from reward.ledger.calls import Calls
from reward.records.call import Answer, Call, CallKind, FailureKind, ServiceFailure, content_key
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings

PROMPTS = Path(__file__).with_name("prompts")
REWRITE = "rewritten_query"
OUTPUT_TOKENS = {"zero_shot": 40, "hyde": 120}  # of a typical answer without reasoning
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


class PromptedRewriter:
    """Rewrites for one tenant. Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the API key's environment variable is not set.
    """

    def __init__(self, settings: PromptedSettings, tenant: TenantSettings, cny_per_usd: float, calls: Calls):
        self._settings, self._tenant, self._calls, self._cny_per_usd = settings, tenant, calls, cny_per_usd
        self._cost = partial(cost_cny, settings.price, cny_per_usd=cny_per_usd) if settings.price else None
        self._api = ChatApi(settings)

    async def rewrite(self, sample: Sample) -> Answer:
        """Return `{"rewritten_query": …}`: the model's text, trimmed, without what it thought aloud; or the failure."""
        question = prompted_question(self._settings, self._tenant, sample)
        call = Call(
            CallKind.PROMPTED,
            key=prompted_key(self._settings, question),
            service=self._settings.service,
            tenant=self._tenant.tenant_id,
            token_bound=token_bound(self._settings, question),
            cost_bound=cost_bound(self._settings, question, self._cny_per_usd),
        )
        return await self._calls.once(call, lambda: self._api.ask(question, 0.0), self._cost)

    async def aclose(self) -> None:
        await self._api.aclose()


def prompted_question(settings: PromptedSettings, tenant: TenantSettings, sample: Sample) -> Question:
    """Build the two messages: the prompt file with the tenant's task, and the query with its context.

    The second is the user message of the one chat template (`data_prep.prompt`) without its instruction, so that every
    system knows the same of a query.
    """
    system = Template(_prompt(f"{settings.prompt}-{tenant.language}")).substitute(task=tenant.system_prompt).strip()
    user = build_messages(sample, tenant)[1]["content"].removesuffix(SEPARATOR + TEMPLATES[tenant.language].instruction)
    return Question(system, user, {}, parse_rewrite)


def prompted_key(settings: PromptedSettings, question: Question) -> str:
    """Return the content key of an answer: model and version, sampling parameters, messages."""
    return content_key("prompted", settings.version, request_body(settings, question))


def parse_rewrite(text: str) -> Parsed:
    """Read a rewrite out of a model's answer. Markup stays: it is what the system would send to retrieval."""
    rewrite = _THOUGHT.sub("", text).strip()
    if not rewrite or rewrite.startswith("<think>"):
        return ServiceFailure("rewrite is empty", FailureKind.MALFORMED)
    return {REWRITE: mask_message(rewrite)}


@lru_cache
def _prompt(name: str) -> str:
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8")
