"""Query expansion as a task, against a real HTTP service: rewards, abstentions, replay, metrics, alarms."""

import asyncio
import json
from pathlib import Path

import pytest
from fastapi import FastAPI, Request

from reward.audit import audit_run
from reward.engine import flat_fields
from reward.records.expansion import Line
from reward.records.outcome import Abstained, AbstainReason, Gated, GateReason, Scored
from reward.records.sample import Context, Metadata, Sample
from reward.replay import main as replay
from reward.rollouts.alarm import AlarmLimits
from reward.rollouts.groups import step_metrics
from reward.rollouts.rescoring import rescore
from reward.rollouts.rollout_log import FOLDER, RolloutLog
from reward.scorer import Scorer
from reward.services.rag_client import RagClient
from reward.settings.recipe import RewriterSettings
from tests.support.asgi_server import AsgiServer

PASSAGES = ["bread oven crust", "oauth callback client secret", "oauth history", "login page design"]
QUERY = "how to configure oauth login"
GOOD = """\
lex: oauth login client secret redirect
lex: configure oauth callback token
vec: how to set up oauth login with a client secret and a redirect address
hyde: To configure oauth login, register the redirect address with the provider and store the client secret."""
HARMFUL = """\
lex: configure oauth login bread crust oven
vec: how to configure the oauth login of a bread oven with a crust
hyde: To configure the oauth login of the bread oven, wait for the crust and open the oven door slowly."""


class LoopbackRag:
    """Ranks PASSAGES by the words that query and typed lines hold; `says` is what it says became of the lines."""

    def __init__(self):
        self.requests: list[dict] = []
        self.says: dict[str, str] | None = dict.fromkeys(("lex", "vec", "hyde"), "searched")
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request):
            body = await request.json()
            self.requests.append(body)
            asked = [body["query"], *(line["text"] for line in body.get("expansions", ()))]
            wanted = " ".join(asked).lower().replace(",", " ").split()
            ranked = sorted(range(len(PASSAGES)), key=lambda i: -sum(wanted.count(w) for w in PASSAGES[i].split()))
            hits = [{"content": PASSAGES[i], "reranker_score": 0.9 - i / 10, "doc_id": str(i)} for i in ranked]
            data = {"recall": hits, "reranker": "judge@0123456789abcdef"}
            if self.says is not None and body.get("expansions"):
                data["expansions"] = {kind: self.says[kind] for kind in {x["kind"] for x in body["expansions"]}}
            return {"data": data}

        server = AsgiServer(app, log_level="critical", timeout_graceful_shutdown=0)
        self.url, self.close = server.url, server.close


@pytest.fixture
def rag():
    service = LoopbackRag()
    yield service
    service.close()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settings(url: str, **expansion) -> RewriterSettings:
    tenant = {"tenant_id": "t", "short_id": "t", "system_prompt": "", "rag": {"url": url, "attempts": 1, "timeout": 5}}
    ledger = {"path": "ledger.sqlite", "run_id": "test"}
    values = {"task": "expansion", "tenant": tenant, "ledger": ledger, "expansion": expansion}
    return RewriterSettings.model_validate(values)


def sample(relevant: tuple[str, ...] = ("1",)) -> Sample:
    metadata = Metadata(tenant_id="t")
    return Sample(sample_id="1", original_query=QUERY, metadata=metadata, relevant_doc_ids=relevant)


def score(rag, *completions: str, relevant: tuple[str, ...] = ("1",), **expansion):
    async def run():
        scorer = Scorer(settings(rag.url, **expansion))
        try:
            scored = [await scorer.score(sample(relevant), text, step=1) for text in completions]
            return scored, [flat_fields(one, scorer.task) for one in scored], scorer.task
        finally:
            await scorer.aclose()

    return asyncio.run(run())


def test_lines_that_find_the_passage_earn_more_than_lines_that_lose_it(rag):
    (good, harmful, broken), fields, _ = score(rag, GOOD, HARMFUL, f"{GOOD}\nand more")
    assert isinstance(good.rollout.outcome, Scored) and isinstance(harmful.rollout.outcome, Scored)
    parts = good.rollout.outcome.parts
    assert parts.policy_rank == 1 and parts.plain_rank is not None and parts.expansion is not None
    assert parts.expansion.gain == parts.retrieval
    expected = 0.4 * parts.expansion.rules + 0.6 * parts.expansion.paid
    assert good.rollout.outcome.reward == pytest.approx(expected - parts.recital_penalty)
    assert good.rollout.outcome.reward > harmful.rollout.outcome.reward > -1.0
    assert broken.rollout.outcome == Gated(
        reward=-1.0, reason=GateReason.UNPARSEABLE, detail="line without a kind: 'and more': score 0"
    )
    # Both ask for the plain query, which is asked once; a gated one asks for nothing.
    assert len(rag.requests) == 3
    assert rag.requests[0]["rewritten_query"] == QUERY
    assert [line["kind"] for line in rag.requests[0]["expansions"] or rag.requests[1]["expansions"]]
    metrics = step_metrics(fields, [True] * 3)
    assert metrics["gated"] == pytest.approx(1 / 3)


def test_the_metrics_of_a_step(rag):
    _, fields, task = score(rag, GOOD, HARMFUL, "no lines")
    metrics = task.metrics(fields)
    assert metrics["valid_share"] == pytest.approx(2 / 3)
    assert {"reward_rules", "reward_retrieval", "lex_lines", "8b_win_rate", "rewrite_length"} <= metrics.keys()
    assert len({frozenset(one) for one in fields}) == 1  # one key set for every outcome


def test_rules_v1_is_the_rule_score_and_asks_nothing(rag):
    (good, broken), fields, task = score(rag, GOOD, "no lines", preset="rules-v1")
    assert good.rollout.outcome.reward == good.rollout.outcome.parts.expansion.rules > 0.9
    assert broken.rollout.outcome.reward == 0.0 and rag.requests == []
    assert "reward_retrieval" not in task.metrics(fields)  # left out, not 0


def test_a_service_that_is_silent_about_the_lines_is_no_score(rag):
    rag.says = None
    (one,), _, _ = score(rag, GOOD)
    assert isinstance(one.rollout.outcome, Abstained) and one.rollout.outcome.reason is AbstainReason.RAG
    assert "data.expansions" in one.rollout.outcome.detail


def test_kinds_that_were_not_searched_are_on_record(rag):
    rag.says = {"lex": "searched", "vec": "not searched: dense off", "hyde": "not searched: dense off"}
    (one,), fields, task = score(rag, GOOD)
    assert one.rollout.outcome.parts.expansion.unsearched == ("vec", "hyde")
    assert task.metrics(fields)["unsearched_kinds"] == 2


def test_a_recited_passage_gains_nothing(rag, monkeypatch):
    passage = "register the redirect address with the provider store the client secret and verify every token"
    monkeypatch.setitem(globals(), "PASSAGES", ["bread", passage, "login", "page"])
    (one,), _, _ = score(rag, GOOD.rsplit("\n", 1)[0] + f"\nhyde: Now {passage}.")
    parts = one.rollout.outcome.parts
    assert parts.copied_run > 8 and parts.expansion.paid <= 0 and parts.recital_penalty > 0


def test_without_known_passages_the_rerankers_scores_count(rag):
    (one,), _, _ = score(rag, GOOD, relevant=())
    parts = one.rollout.outcome.parts
    assert parts.policy_rank is None and -1 < parts.expansion.gain < 1


def test_a_logged_run_replays_to_the_same_rewards_and_its_audit_leaves_out_what_does_not_apply(rag, capsys):
    scorings, _, task = score(rag, GOOD, HARMFUL, "no lines")
    run = Path("run")
    log = RolloutLog(run / FOLDER)
    for step in (1, 2):
        for scoring in scorings * 20:
            log.append(scoring.rollout.model_copy(update={"step": step}))
    log.close()
    node = settings(rag.url).model_dump(mode="json")
    (run / "recipe.yaml").write_text(json.dumps({"rewriter": node}))
    assert all(rescore(one.rollout, task) == one.rollout.outcome for one in scorings)
    assert replay(["--run", str(run)]) == 0 and "identical rewards: 120 of 120" in capsys.readouterr().out
    names = {alarm.name for alarm in audit_run(run, AlarmLimits(min_rollouts=10)).alarms}
    assert "gate_rate" in names and names.isdisjoint({"copy_rate", "free_riders", "entity_drop", "language_switch"})


def test_the_client_sends_lines_and_reads_what_became_of_them(rag):
    async def ask(*lines: Line):
        client = RagClient(settings(rag.url).tenant.rag, "t")
        try:
            return (await client.retrieve(QUERY, Context(), expansions=lines))[0]
        finally:
            await client.aclose()

    assert asyncio.run(ask()).unsearched == () and "expansions" not in rag.requests[-1]
    rag.says["hyde"] = "not searched: dense unavailable: no model"
    found = asyncio.run(ask(Line("lex", "oauth"), Line("hyde", "oauth is")))
    assert found.unsearched == ("hyde",)
    assert rag.requests[-1]["expansions"] == [{"kind": "lex", "text": "oauth"}, {"kind": "hyde", "text": "oauth is"}]
