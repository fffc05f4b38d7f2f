"""The faults of a whole rollout: under `RewardEngine.score` a service, the budget or a file fails."""

from __future__ import annotations

import json
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward.engine import RewardEngine
from reward.judge.protocol import DELIMITERS
from reward.records.call import FailureKind as F
from reward.records.outcome import AbstainReason as A
from reward.records.sample import Metadata, Sample
from reward.rollouts.rollout_log import FOLDER
from reward.settings.recipe import RewriterSettings
from tests.support.fault_cases import FUSED, HIT, QUOTA, WorkingService
from tests.support.judge_fault_cases import completion
from tests.support.loopback_judge import FAIR, GOOD, verdict
from tests.support.scripted_service import Step, answer, reset, say, status

SAMPLE = Sample(
    sample_id="t_1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"), relevant_doc_ids=("relevant",)
)
BASELINE, REWRITE = FAIR, GOOD  # the policy's is the better one, to the knowledge base and to the judge
BUSY = status("503 Service Unavailable")


def recall(body: dict[str, Any]) -> dict[str, Any]:
    """The relevant passage comes first for the policy's rewrite, second for the baseline's."""
    hits = [
        {"content": name, "doc_id": name, "reranker_score": score}
        for name, score in (("relevant", 0.9), ("other", 0.4))
    ]
    return {"data": {"recall": hits if body["rewritten_query"] == REWRITE else hits[::-1]}}


def judged_text(body: dict[str, Any]) -> str:
    text = body["messages"][1]["content"]
    return json.loads(text.split(DELIMITERS[0])[1].split(DELIMITERS[1])[0])["改写"]


def grade(body: dict[str, Any]) -> dict[str, Any]:
    return completion(json.dumps(verdict(judged_text(body)), ensure_ascii=False))


class Deployment:
    """The three services of a run, in working order, and engines that use them. `folder` is the run's output."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.services = {
            "rag": WorkingService(recall),
            "baseline": WorkingService(lambda body: {"rewritten_query": BASELINE}),
            "judge": WorkingService(grade),
        }
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Deployment:
        for service in self.services.values():
            await self._running.enter_async_context(service)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._running.aclose()

    def requests(self) -> int:
        return sum(len(service.bodies) for service in self.services.values())

    def engine(self, **changes: Any) -> RewardEngine:
        """`changes`: a service's settings, or `run`, the budget."""
        url = {name: service.url for name, service in self.services.items()}
        price = {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12}
        tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "你是查询优化专家。"}
        judge = {"model": "m", "base_url": url["judge"], "price": price, "attempts": 1, "baseline_votes": 1}
        values = {
            "tenant": {
                **tenant,
                "rag": {"url": url["rag"], "attempts": 1, **changes.get("rag", {})},
                "baseline": {"url": url["baseline"], "attempts": 1, **changes.get("baseline", {})},
            },
            "judge": {**judge, **changes.get("judge", {})},
            "ledger": {"path": self.folder / "ledger.sqlite", "run_id": "run", "run": changes.get("run", {})},
        }
        return RewardEngine(RewriterSettings.model_validate(values), self.folder)


Breaking = Callable[[Deployment], AbstractContextManager[None]]


@dataclass(frozen=True)
class EngineCase:
    """One fault of a rollout, until it is mended.

    Args:
        breaking: breaks what fails on entry, mends it on exit.
        in_vain: requests whose answers came to nothing; all others are never sent again.
        changes: settings of the run that meets the fault.
        resumes: the run must be started again, without `changes`; otherwise it goes on as it is.
    """

    fails: str
    name: str
    reason: A
    failure: F | None
    in_vain: int
    breaking: Breaking = lambda deployment: nullcontext()
    changes: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False


def answers_with(name: str, step: Step, when: Callable[[dict[str, Any]], bool] = lambda body: True) -> Breaking:
    """That service answers with `step` instead (to some requests)."""

    @contextmanager
    def breaking(deployment: Deployment) -> Iterator[None]:
        service = deployment.services[name]
        working, service.fault = service.fault, lambda body: step if when(body) else None
        yield
        service.fault = working

    return breaking


@contextmanager
def locked_ledger(deployment: Deployment) -> Iterator[None]:
    other = sqlite3.connect(deployment.folder / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def full_disk(deployment: Deployment) -> Iterator[None]:
    """No file of this process may grow beyond 8 KiB: less than the ledger's first row needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def folder_in_the_logs_place(deployment: Deployment) -> Iterator[None]:
    place = deployment.folder / FOLDER / "rollouts-00000.jsonl"
    place.mkdir()
    yield
    place.rmdir()


def of_policy(body: dict[str, Any]) -> bool:
    return REWRITE in (body.get("rewritten_query") or judged_text(body))


def of_baseline(body: dict[str, Any]) -> bool:
    return not of_policy(body)


BAD_HIT = answer({"data": {"recall": [{"content": "鱼油", "doc_id": "relevant", "reranker_score": "0.9"}]}})
OUT_OF_RANGE = answer(completion(json.dumps(verdict(GOOD), ensure_ascii=False).replace(": 5", ": 50")))
MIXED = answer({"data": {"recall": [HIT, FUSED]}})
REFUSAL = answer(completion(None, refusal="I can't assist with that"))

ENGINE_CASES = [
    EngineCase("rag", "503", A.RAG, F.SERVER_ERROR, 3, answers_with("rag", BUSY)),
    EngineCase("rag", "503 for the rewrite alone", A.RAG, F.SERVER_ERROR, 1, answers_with("rag", BUSY, of_policy)),
    EngineCase("rag", "503 for all but the rewrite", A.RAG, F.SERVER_ERROR, 2, answers_with("rag", BUSY, of_baseline)),
    EngineCase("rag", "connection reset", A.RAG, F.CONNECTION, 3, answers_with("rag", reset())),
    EngineCase("rag", "a score that is a string", A.RAG, F.MALFORMED, 3, answers_with("rag", BAD_HIT)),
    EngineCase("rag", "one hit reranked, another not", A.RAG, F.MALFORMED, 3, answers_with("rag", MIXED)),
    EngineCase(
        "rag",
        "no answer in time",
        A.RAG,
        F.TIMEOUT,
        3,
        answers_with("rag", say(b"", after=5)),
        changes={"rag": {"timeout": 0.7}},
    ),
    EngineCase("baseline", "503", A.BASELINE, F.SERVER_ERROR, 1, answers_with("baseline", BUSY)),
    EngineCase(
        "baseline",
        "no rewrite in the answer",
        A.BASELINE,
        F.MALFORMED,
        1,
        answers_with("baseline", answer({"code": 0})),
    ),
    EngineCase(
        "baseline",
        "none recorded, no service configured",
        A.BASELINE,
        F.NOT_CONFIGURED,
        0,
        changes={"baseline": {"url": None}},
        resumes=True,
    ),
    EngineCase("judge", "503", A.JUDGE, F.SERVER_ERROR, 2, answers_with("judge", BUSY)),
    EngineCase(
        "judge", "503 for the rewrite alone", A.JUDGE, F.SERVER_ERROR, 1, answers_with("judge", BUSY, of_policy)
    ),
    EngineCase(
        "judge", "503 for the baseline's alone", A.JUDGE, F.SERVER_ERROR, 1, answers_with("judge", BUSY, of_baseline)
    ),
    EngineCase(
        "judge", "expired key (401)", A.JUDGE, F.NOT_AUTHORISED, 2, answers_with("judge", status("401 Unauthorized"))
    ),
    EngineCase(
        "judge",
        "the provider's account is spent",
        A.BUDGET,
        F.QUOTA_EXHAUSTED,
        2,
        answers_with("judge", status("429 Too Many Requests", QUOTA)),
    ),
    EngineCase("judge", "refusal", A.JUDGE, F.REFUSED, 2, answers_with("judge", REFUSAL)),
    EngineCase("judge", "grades out of range", A.JUDGE, F.MALFORMED, 2, answers_with("judge", OUT_OF_RANGE)),
    EngineCase(
        "budget",
        "spent before the first call",
        A.BUDGET,
        F.BUDGET_SPENT,
        0,
        changes={"run": {"calls": 0}},
        resumes=True,
    ),
    EngineCase(
        "budget", "spent after the first call", A.BUDGET, F.BUDGET_SPENT, 0, changes={"run": {"calls": 1}}, resumes=True
    ),
    EngineCase("ledger", "locked by another process for too long", A.RECORD, None, 1, locked_ledger, resumes=True),
    EngineCase("ledger", "disk full", A.RECORD, None, 1, full_disk, resumes=True),
    EngineCase("rollout log", "a folder in its file's place", A.RECORD, None, 0, folder_in_the_logs_place),
]


def ledger_is_a_folder(folder: Path) -> Path:
    (folder / "ledger.sqlite").mkdir(parents=True)
    return folder / "ledger.sqlite"


def ledger_is_cut_short(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + b"\0" * 84)
    return folder / "ledger.sqlite"


def log_is_a_file(folder: Path) -> Path:
    folder.mkdir()
    (folder / FOLDER).write_text("")
    return folder / FOLDER


START_CASES: dict[str, Callable[[Path], Path]] = {
    "ledger: a folder in its place": ledger_is_a_folder,
    "ledger: cut short": ledger_is_cut_short,
    "rollout log: a file in its folder's place": log_is_a_file,
}
