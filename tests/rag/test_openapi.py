"""Every operation of the OpenAPI description, called with what Schemathesis makes up from it: valid and invalid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from tests.support.rag_server import COURSES, HEALTH, add_knowledge_base, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KBS = "/api/tenants/{tenant}/knowledge_bases"
# At full size; a sample is a tenth. Those that destroy come last. A rebuild starts a process.
EXAMPLES = {
    "POST /api/chat/general_rag": 150,
    "POST /search": 50,
    "POST /retrieval": 150,
    "POST /ask": 150,
    "POST /feedback": 100,
    "GET /healthz": 10,
    "GET /metrics": 5,
    f"GET {KBS}": 100,
    f"POST {KBS}": 100,
    f"GET {KBS}/{{kb}}": 100,
    f"GET {KBS}/{{kb}}/documents": 100,
    f"GET {KBS}/{{kb}}/documents/{{name}}": 100,
    f"PUT {KBS}/{{kb}}/documents/{{name}}": 100,
    f"POST {KBS}/{{kb}}/rebuild": 5,
    f"DELETE {KBS}/{{kb}}/documents/{{name}}": 100,
    f"DELETE {KBS}/{{kb}}": 10,
}
OPEN = {"GET /healthz", "GET /metrics"}


@dataclass(frozen=True)
class Api:
    url: str
    key: str
    schema: BaseSchema


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("openapi") / "data"
    add_knowledge_base(folder, "fivedoctors", HEALTH)
    add_knowledge_base(folder, "chengla", COURSES)
    catalogue = Catalogue(folder)
    key = AccessKeys(catalogue).create("fivedoctors", "manage")
    catalogue.close()
    with serving(folder, keys=True) as url:
        yield Api(url, key, schemathesis.openapi.from_url(f"{url}/openapi.json"))


def aim(case: Case) -> None:
    """Sends the case to what exists, so that it gets further than to a 403 or 404."""
    real = {"tenant": "fivedoctors", "kb": "default", "name": "notes.md"}
    case.path_parameters = {name: real[name] for name in case.path_parameters or {}}
    if isinstance(case.body, dict):
        real = {"tenant_id": "fivedoctors", "kb_name": "default", "knowledge_id": "fivedoctors/default"}
        case.body |= {name: real[name] for name in case.body if name in real}


def test_every_operation_is_tested(api: Api) -> None:
    assert {result.ok().label for result in api.schema.get_all_operations()} == EXAMPLES.keys()


@pytest.mark.parametrize("label", EXAMPLES)
def test_answers_are_what_the_description_says_and_never_5xx(api: Api, label: str, full: bool) -> None:
    method, path = label.split()
    operation = api.schema[path][method]
    made_up = operation.as_strategy()
    if operation.body or operation.path_parameters or operation.query:
        made_up |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    headers = {"Authorization": f"Bearer {api.key}"}

    @seed(1)
    @settings(
        max_examples=EXAMPLES[label] if full else max(5, EXAMPLES[label] // 10),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(case=made_up, aimed=st.booleans())
    def call(case: Case, aimed: bool) -> None:
        if aimed:
            aim(case)
        case.call_and_validate(headers=headers, checks=CHECKS)

    call()


@pytest.mark.parametrize("label", sorted(EXAMPLES.keys() - OPEN))
def test_no_operation_works_without_a_key(api: Api, label: str) -> None:
    method, path = label.split()
    url = api.url + path.format(tenant="fivedoctors", kb="default", name="notes.md")
    body = {"query": "鱼油", "tenant_id": "fivedoctors", "doc_id": "0-usage", "clicked": True, "name": "new"}
    body |= {"knowledge_id": "fivedoctors/default", "retrieval_setting": {"top_k": 1}}
    for headers in ({}, {"Authorization": "Bearer rag_made-up"}, {"Authorization": api.key}):
        answer = httpx.request(method, url, json=body, headers=headers, trust_env=False)
        assert answer.status_code == (403 if path == "/retrieval" else 401), answer.text


def test_the_description_holds_an_example_of_every_request_body(api: Api) -> None:
    description = httpx.get(f"{api.url}/openapi.json", trust_env=False).json()
    schemas = description["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith("Request"):
            examples = schema.get("examples") or [p.get("examples") for p in schema["properties"].values()]
            assert any(examples), name
