"""The large model that writes examples: its profile, what it is asked, what counts as its answer."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_prep.expansions.examples import MOST_LINES
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_line
from reward.expansion.language import language_of
from reward.expansion.parser import KINDS, parse
from reward.judge.chat_api import ChatApi
from reward.judge.costs import cost_bound, cost_cny, token_bound
from reward.judge.protocol import Parsed, Question, request_body
from reward.ledger.calls import Calls
from reward.records.call import Answer, Call, CallKind, FailureKind, ServiceFailure, content_key
from reward.records.files import BadInput
from reward.settings.chat import ChatSettings
from reward.settings.data import DeidentifySettings
from reward.settings.recipe import CONFIGS, Language, load_settings

TEACHER_CONFIGS = CONFIGS / "expander"
PROMPTS = Path(__file__).with_name("prompts")
CNY_PER_USD = 7.1
LONGEST_QUERY = 500  # characters
TENANT = "expansion"  # whose calls the ledger says they are


class TeacherSettings(ChatSettings):
    """A chat model that writes examples."""

    temperature: float | None = Field(0.7, ge=0, le=2)
    response_format: Literal["text"] = "text"


def load_teacher(name_or_path: str) -> TeacherSettings:
    """Read the profile of that name (`recipes/config/expander`) or YAML file.

    Raises:
        BadInput: no such profile, not YAML, or a key is unknown, missing or out of range.
    """
    known = ", ".join(sorted(path.stem for path in TEACHER_CONFIGS.glob("*.yaml")))
    return load_settings(TeacherSettings, name_or_path, TEACHER_CONFIGS, "expander", f"known profiles: {known}")


class Teacher:
    """Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the API key's environment variable is not set.
    """

    def __init__(self, settings: TeacherSettings, calls: Calls, cny_per_usd: float):
        self._settings, self._calls, self._cny_per_usd = settings, calls, cny_per_usd
        self._cost = partial(cost_cny, settings.price, cny_per_usd=cny_per_usd) if settings.price else None
        self._api = ChatApi(settings)

    async def expand(self, query: str, prompt: str | None = None) -> Answer:
        """Return `{"expansion": …}`, the typed lines, or the failure. What the ledger has is not asked again.

        Args:
            prompt: the system message; None: that of the query's language.
        """
        return await self.ask(Question(prompt or system_prompt(language_of(query)), query, {}, parse_answer))

    async def ask(self, question: Question) -> Answer:
        """Return what `question.parse` makes of the answer, or the failure."""
        call = Call(
            CallKind.PROMPTED,
            key=content_key("expand", self._settings.version, request_body(self._settings, question)),
            service=self._settings.service,
            tenant=TENANT,
            token_bound=token_bound(self._settings, question),
            cost_bound=cost_bound(self._settings, question, self._cny_per_usd),
        )
        return await self._calls.once(call, lambda: self._api.ask(question, 0.0), self._cost)

    async def aclose(self) -> None:
        await self._api.aclose()


def parse_answer(text: str) -> Parsed:
    """Read an answer: lex and vec lines are there, every line is typed, none is too many."""
    expansion = parse(text)
    problem = ""
    if expansion.leaked:
        problem = "a piece of a chat template"
    elif expansion.invalid:
        problem = f"a line without kind or text: {expansion.invalid[0][:60]!r}"
    elif lacking := [kind for kind in ("lex", "vec") if not expansion.of(kind)]:  # type: ignore[arg-type]
        problem = f"no {lacking[0]} line"
    elif many := [kind for kind in KINDS if len(expansion.of(kind)) > MOST_LINES[kind]]:
        problem = f"more than {MOST_LINES[many[0]]} {many[0]} lines"
    if problem:
        return ServiceFailure(f"expansion has {problem}", FailureKind.MALFORMED)
    return {"expansion": expansion.to_text()}


def asked_query(query: str) -> str:
    """Return a query as it is sent: one line, normalised, personal data masked.

    Raises:
        BadInput: it is empty or longer than `LONGEST_QUERY`.
    """
    line = normalise_line(query)
    if not line:
        raise BadInput("query: empty")
    if len(line) > LONGEST_QUERY:
        raise BadInput(f"query: {len(line)} characters, {LONGEST_QUERY} at most")
    return deidentify_text(line, DeidentifySettings())[0]


@lru_cache
def system_prompt(language: Language) -> str:
    return (PROMPTS / f"expand-{language}.txt").read_text(encoding="utf-8").strip()
