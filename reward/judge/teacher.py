"""The teacher: gives its opinion of a medical answer, each question asked once (`reward.judge.teacher_protocol`).

Its opinions lie in the ledger, which is cache, budget and record in one; every attempt goes to the archive. A failed or
contradictory opinion is a failure, never a score: the reward then rests on the rules alone and says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

from guard.private_files import make_folder
from reward.judge.chat_api import ChatApi
from reward.judge.costs import cost_bound, cost_cny, token_bound
from reward.judge.prompt_file import read_prompt_file
from reward.judge.teacher_archive import ARCHIVE_FOLDER, TeacherArchive
from reward.judge.teacher_protocol import TeacherMode, teacher_key, teacher_question
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, Call, CallKind, CallTrace, ServiceFailure
from reward.records.medical import HIGH_RISK, RED_TEAM, TeacherVerdict
from reward.records.sample import Sample
from reward.services.attempts import Attempt
from reward.settings.recipe import CONFIGS, LedgerSettings, load_settings
from reward.settings.teacher import TeacherSettings

TEMPLATES = Path(__file__).with_name("prompts") / "teacher"
PROFILES = CONFIGS / "teacher"
_ONCE = ("opinion", 0)


class Teacher:
    """Use it from a single event loop; close it with `aclose`.

    Args:
        archive: folder that every attempt is written to.
        mode: `training` grades rollouts, `quality` reviews samples and may offer a better answer.

    Raises:
        BadInput: the API key's environment variable is not set, or there is no prompt file of that version.
        OSError: the archive's folder cannot be written.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        tenant_id: str,
        cny_per_usd: float,
        calls: Calls,
        archive: Path,
        mode: TeacherMode = "training",
    ):
        self._template, self.template = read_template(settings, mode), f"{mode}-{settings.template}"
        self._settings, self._tenant, self._mode, self._calls = settings, tenant_id, mode, calls
        self._cny_per_usd = cny_per_usd
        self._cost = partial(cost_cny, settings.price, cny_per_usd=cny_per_usd)
        self._archive = TeacherArchive(archive)
        self._api = ChatApi(settings)

    async def ask(self, sample: Sample, answer: str, round_: Sequence[Any] = _ONCE) -> Answer:
        """Return the teacher's opinion of an answer to the sample's question; high-risk samples are served first.

        The JSON holds the fields of `Opinion`, what it is about (`sample_id`, `question`, `answer`), `template`,
        `model` and `mode`.

        Args:
            round_: what sets this asking apart from others about the same answer: each round is a call of its own.
        """
        question = teacher_question(self._template, self._mode, sample, answer)
        key = teacher_key(self._settings, self._mode, question, round_)
        about = {
            "sample_id": sample.sample_id,
            "question": sample.original_query,
            "answer": answer,
            "mode": self._mode,
            "template": self.template,
            "model": self._settings.service,
        }

        async def perform() -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
            number = 0

            def archive(attempt: Attempt, body: bytes) -> None:
                nonlocal number
                number += 1
                identity = {"key": key, "sample_id": sample.sample_id, "model": self._settings.model}
                identity |= {"version": self._settings.version, "template": self.template}
                self._archive.append({**identity, "messages": question.messages}, number, attempt, body)

            value, trace = await self._api.ask(question, priority_of(sample), archive)
            return value if isinstance(value, ServiceFailure) else {**about, **value}, trace

        call = Call(
            CallKind.TEACHER,
            key=key,
            service=self._settings.service,
            tenant=self._tenant,
            token_bound=token_bound(self._settings, question),
            cost_bound=cost_bound(self._settings, question, self._cny_per_usd),
        )
        return await self._calls.once(call, perform, self._cost)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._api.aclose()


@asynccontextmanager
async def teaching(
    settings: TeacherSettings, ledger: LedgerSettings, tenant_id: str, mode: TeacherMode = "training"
) -> AsyncIterator[Teacher]:
    """Yield a teacher with a ledger of its own, which is made where there is none; both are closed at the end.

    Raises:
        BadInput: the ledger cannot be opened, the key is not set, or there is no such template.
        OSError: the archive's folder cannot be written.
    """
    make_folder(ledger.path.parent)
    with closing(Ledger(ledger)) as book:
        archive = ledger.path.parent / ARCHIVE_FOLDER
        teacher = Teacher(settings, tenant_id, ledger.cny_per_usd, Calls(book), archive, mode)
        try:
            yield teacher
        finally:
            await teacher.aclose()


def priority_of(sample: Sample) -> float:
    """Return when a sample is served, in [0, 1]: the riskier the sooner.

    >>> priority_of(red_team_sample), priority_of(everyday_sample)
    (1.0, 0.5)
    """
    return 1.0 if {HIGH_RISK, RED_TEAM} & set(sample.metadata.slices) else 0.5


def verdict_of(opinion: Mapping[str, Any]) -> TeacherVerdict:
    """Return what a reward needs of an opinion as the ledger keeps it."""
    return TeacherVerdict.model_validate({name: opinion.get(name) for name in TeacherVerdict.model_fields})


def load_teacher(name_or_path: str) -> TeacherSettings:
    """The profile of that name (`recipes/config/teacher/<name>.yaml`) or of that YAML file.

    Raises:
        BadInput: no such profile, not YAML, or a key is unknown, missing or out of range.
    """
    known = sorted(path.stem for path in PROFILES.glob("*.yaml") if path.stem != "none")
    return load_settings(TeacherSettings, name_or_path, PROFILES, "teacher", f"known profiles: {', '.join(known)}")


def read_template(settings: TeacherSettings, mode: TeacherMode) -> str:
    """Read the prompt file of that mode and version.

    Raises:
        BadInput: there is none.
    """
    return read_prompt_file(TEMPLATES, f"{mode}-{settings.template}", "teacher.template")
