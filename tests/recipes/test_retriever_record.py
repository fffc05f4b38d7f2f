"""The retriever that a run met, from the launcher's record to the decision about its model."""

import json

import pytest
import yaml

from evaluation.provenance.retriever import describe_retriever
from evaluation.provenance.training_run import find_training_run
from export.versions.evidence import Evidence
from export.versions.rules import Candidate, check_rules
from recipes.retriever_record import record_retriever
from reward.records.run_files import RETRIEVER_FILE
from reward.services.served_index import read_index
from reward.settings.promotion import PromotionSettings
from reward.settings.recipe import TenantSettings
from tests.support.rank_service import RankService

INDEX = {
    "version": 3,
    "created_at": "2026-11-01",
    "revision": 12,
    "documents": 9,
    "embedder_id": "e@1",
    "reranker": "r",
}


@pytest.fixture
def service():
    running = RankService()
    serve(running)
    yield running
    running.close()


def serve(service: RankService, **changes) -> None:
    service.health = {"knowledge_bases": [{"tenant_id": "shop", "kb_name": "default", **INDEX, **changes}]}


def shop(service: RankService, kb_version: str = "") -> TenantSettings:
    rag = {"url": service.url, "kb_version": kb_version}
    return TenantSettings(tenant_id="shop", short_id="shop", system_prompt="x", rag=rag)


def write_recipe(run, *, trainer: str = "rl", task: str = "rewrite", start_from: str = "", kb_version: str = ""):
    """The folder of a run as the launcher leaves it; returns its model's folder."""
    (run / "final").mkdir(parents=True)
    rewriter = {"task": task, "tenant": {"tenant_id": "shop", "rag": {"kb_version": kb_version}}}
    recipe = {"recipe": {"trainer": trainer, "start_from": start_from}, "rewriter": rewriter}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run / "final"


def decided(final, tenant: TenantSettings, scorers: tuple[str, ...] = ("r",)):
    """What promotion finds about the retriever, when the model is evaluated now."""
    index = read_index(tenant.rag, "shop")
    described = describe_retriever(tenant.rag, index, list(scorers), {"rl": find_training_run(final)})
    evidence = Evidence(json.loads(json.dumps({"provenance": {"retriever": described}})))
    findings = check_rules(evidence, Candidate(system="rl"), PromotionSettings())
    return next(finding for finding in findings if finding.rule == "retriever")


def test_a_retriever_that_stays_the_same_promotes(tmp_path, service):
    final = write_recipe(tmp_path)
    record_retriever(tmp_path, shop(service), 0)
    record_retriever(tmp_path, shop(service), 40)
    assert json.loads((tmp_path / RETRIEVER_FILE).read_text()) == {
        "retrievers": [{"from_step": 0, "index": read_index(shop(service).rag, "shop")}]
    }
    assert decided(final, shop(service)).outcome == "pass"


@pytest.mark.parametrize(
    "change",
    [{"version": 4}, {"revision": 13}, {"documents": 8}, {"created_at": "2026-12-01"}, {"embedder_id": "e@2"},
     {"reranker": "lexical"}],
)  # fmt: skip
def test_a_retriever_that_changed_since_holds_and_says_what(tmp_path, service, change):
    final = write_recipe(tmp_path)
    record_retriever(tmp_path, shop(service), 0)
    serve(service, **change)
    finding = decided(final, shop(service))
    [(name, now)] = change.items()
    assert finding.outcome == "hold"
    assert f"{name} {INDEX[name]!r} in training, {now!r} here" in finding.reason


def test_a_retriever_that_changed_during_the_training_holds(tmp_path, service):
    final = write_recipe(tmp_path)
    record_retriever(tmp_path, shop(service), 0)
    serve(service, revision=13)
    record_retriever(tmp_path, shop(service), 40)
    finding = decided(final, shop(service))
    assert finding.outcome == "hold" and "revision 12 in training, 13 later in training" in finding.reason
    # The steps that met the other one are taken again with the first.
    serve(service)
    record_retriever(tmp_path, shop(service), 20)
    assert decided(final, shop(service)).outcome == "pass"


def test_a_service_that_is_down_when_the_training_ends_changes_nothing(tmp_path, service):
    final = write_recipe(tmp_path)
    record_retriever(tmp_path, shop(service), 0)
    service.health = None
    record_retriever(tmp_path, shop(service), 40)
    assert "did not describe it here" in decided(final, shop(service)).reason
    serve(service)
    assert decided(final, shop(service)).outcome == "pass"


def test_a_service_that_describes_nothing_needs_a_version_of_its_knowledge_base(tmp_path, service):
    service.health = None
    final = write_recipe(tmp_path / "without")
    record_retriever(tmp_path / "without", shop(service), 0)
    # A reranker that stayed the same does not show that the knowledge base did.
    (tmp_path / "without" / "reranker.json").write_text('{"reranker": "r"}')
    finding = decided(final, shop(service))
    assert finding.outcome == "hold" and "rag.kb_version was empty" in finding.reason
    final = write_recipe(tmp_path / "with", kb_version="2026-11")
    record_retriever(tmp_path / "with", shop(service, "2026-11"), 0)
    assert decided(final, shop(service, "2026-11")).outcome == "pass"
    finding = decided(final, shop(service, "2026-12"))
    assert finding.outcome == "hold" and "'2026-11' in training, '2026-12' here" in finding.reason


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"retrievers": 3}', '{"retrievers": [{}]}'])
def test_a_damaged_record_is_no_sameness(tmp_path, service, damage):
    final = write_recipe(tmp_path)
    (tmp_path / RETRIEVER_FILE).write_text(damage)
    assert decided(final, shop(service)).outcome == "hold"
    record_retriever(tmp_path, shop(service), 40)
    assert decided(final, shop(service)).outcome == "hold"


def test_a_model_that_asked_no_retriever_is_held_to_the_one_before_it(tmp_path, service):
    sft = write_recipe(tmp_path / "sft", trainer="sft")
    finding = decided(sft, shop(service))
    assert finding.outcome == "pass" and "asked no retriever" in finding.reason
    first = write_recipe(tmp_path / "rl", start_from=str(sft))
    record_retriever(tmp_path / "rl", shop(service), 0)
    second = write_recipe(tmp_path / "sft2", trainer="sft", start_from=str(first))
    assert decided(second, shop(service)).outcome == "pass"
    serve(service, revision=13)
    assert decided(second, shop(service)).outcome == "hold"
    assert decided(sft, shop(service)).outcome == "pass"
