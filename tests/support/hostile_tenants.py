"""Tenants whose names look alike, what they hold, and requests by which one of them reaches for another's.

Every passage, and one document name in each knowledge base, carries the mark `zqv-<tenant>-<knowledge base>-vqz` of
its owner: an answer that holds a foreign mark has leaked, whatever else it says.
"""

import json
import random
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import Document, Passage
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from tests.support.rag_server import RETRIEVER

# Case, full width, Cyrillic, combining accents, a slash, SQL, a wildcard, another's knowledge base as a name.
TENANTS = [
    "acme",
    "Acme",
    "ａｃｍｅ",
    "асme",
    "acmé",
    "acme\u0301",
    "acme-1",
    "acme%",
    "acme' OR '1'='1",
    "acme/default",
]
KB_NAMES = ["default", "Default", "faq"]
MARK = re.compile(r"zqv-(\d+)-(\d+)-vqz")
PATH = "/api/tenants/{}/knowledge_bases"


@dataclass(frozen=True)
class Attack:
    """`allowed`: indexes of the tenants whose passages the answer may hold."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    allowed: set[int]


@dataclass
class World:
    """`keys`: of each tenant, to search and to manage; `revoked` are no longer in use."""

    keys: dict[int, tuple[str, str]] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)


def mark(tenant: int, kb: int) -> str:
    return f"zqv-{tenant}-{kb}-vqz"


def secret(tenant: int) -> str:
    """Words that only this tenant's passages hold."""
    return f"绝密配方{'甲乙丙丁戊己庚辛壬癸'[tenant]}号"


def documents(tenant: int, kb: int) -> list[Document]:
    """The same names and keys with every tenant, but for one."""
    text = f"{mark(tenant, kb)} 鱼油每日两粒，随餐服用。{secret(tenant)}。"
    shared = [
        Document(f"手册{n}.md", (Passage(f"手册{n}.md#1", f"{text} 第{n}章", (f"{text} 怎么吃？",)),)) for n in range(4)
    ]
    return [*shared, Document(f"{mark(tenant, kb)}.md", (Passage(f"{mark(tenant, kb)}.md#1", text),))]


def create_world(folder: Path) -> World:
    """Fills a data folder."""
    catalogue = Catalogue(folder)
    engine = open_engine(folder)
    indexer = Indexer(catalogue, engine, embedder_maker(RETRIEVER))
    access_keys, world = AccessKeys(catalogue), World()
    for tenant, tenant_id in enumerate(TENANTS):
        for kb, name in enumerate(KB_NAMES):
            made = catalogue.create_knowledge_base(tenant_id, name)
            catalogue.put_documents(made.id, documents(tenant, kb))
            filled = catalogue.find_knowledge_base(tenant_id, name)
            assert filled is not None
            indexer.rebuild(filled, lambda share: None)
        world.keys[tenant] = access_keys.create(tenant_id, "search"), access_keys.create(tenant_id, "manage")
        world.revoked.append(access_keys.create(tenant_id, "manage"))
    for row in access_keys.rows()[2::3]:
        access_keys.revoke(row.key_id)
    engine.close()
    catalogue.close()
    return world


def disguise(rng: random.Random, name: str) -> str:
    """The name, or one that careless code would take for it."""
    if rng.random() < 0.6:
        return name
    return rng.choice(
        [
            name.upper(),
            name.swapcase(),
            f" {name} ",
            f"{name}\u200b",
            f"{name}\0",
            f"{name}/",
            f"./{name}",
            f"x/../{name}",
            quote(name, safe=""),
            quote(quote(name, safe=""), safe=""),
            unicodedata.normalize("NFKC", name),
            unicodedata.normalize("NFD", name),
            name.replace("e", "е"),
            "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name),
            f"{name}' --",
            "%",
            "*",
            "",
        ]
    )


def authorisation(rng: random.Random, world: World, tenant: int, victim: int) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Headers, and whether they hold the tenant's own key."""
    own, stolen = rng.choice(world.keys[tenant]), rng.choice(world.keys[victim])
    if rng.random() < 0.75:
        return [(b"authorization", f"Bearer {own}".encode())], True
    near = rng.choice(
        [
            rng.choice(world.revoked),
            stolen[:-1],
            stolen.swapcase(),
            stolen + "A",
            f"{stolen},{own}",
            stolen.replace("rag_", ""),
            "".join(chr(ord(c) + 0xFEE0) for c in stolen),
            f"{victim}",
            TENANTS[victim],
            "' OR 1=1 --",
            "null",
            "",
        ]
    )
    scheme = rng.choice(["Bearer", "bearer", "Basic", "Bearer Bearer", ""])
    return [(b"authorization", f"{scheme} {near}".encode())], False


def attack(rng: random.Random, world: World) -> Attack:
    tenant, victim = rng.sample(range(len(TENANTS)), 2)
    headers, own = authorisation(rng, world, tenant, victim)
    headers += rng.sample(
        [
            (b"x-tenant-id", TENANTS[victim].encode()),
            (b"x-forwarded-user", TENANTS[victim].encode()),
            (b"x-forwarded-for", b"127.0.0.1"),
            (b"cookie", f"key={world.revoked[victim]}; tenant_id=acme".encode()),
            (b"x-original-url", b"/healthz"),
            (b"x-http-method-override", b"DELETE"),
        ],
        rng.randrange(3),
    )
    target = victim if rng.random() < 0.5 else tenant
    tenant_id, kb_name = disguise(rng, TENANTS[target]), disguise(rng, rng.choice(KB_NAMES))
    body: dict[str, object] = {"query": f"{secret(victim)} 鱼油 {rng.randrange(10**6)}", "kb_name": kb_name}
    if rng.random() < 0.8:
        body["tenant_id"] = rng.choice([tenant_id] * 8 + [None, [TENANTS[victim]], {"$ne": ""}, True])
    smuggled = {"kb_id": victim * 3 + 1, "space": "1", "filter": {}, "version": 1, "tenant": TENANTS[victim], "id": 1}
    for name in rng.sample(sorted(smuggled), rng.randrange(3)):
        body[name] = smuggled[name]
    method = "POST"
    kind = rng.choices(["search", "ask", "dify", "feedback", "read", "write"], [10, 2, 4, 1, 2, 1])[0]
    if kind == "search":
        path = "/api/chat/general_rag"
        body |= {"score_threshold": 0, "top_k": rng.choice([1, 5, 200]), "debug": rng.random() < 0.3}
        if rng.random() < 0.5:
            body["rewritten_query"] = secret(victim)
    elif kind == "ask":
        path = "/ask"
    elif kind == "dify":
        path = "/retrieval"
        whole = f"{tenant_id}/{kb_name}"
        body["knowledge_id"] = rng.choice([whole, whole, kb_name, f"{TENANTS[tenant]}/../{whole}"])
        body["retrieval_setting"] = {"top_k": rng.choice([1, 50]), "score_threshold": 0}
        if rng.random() < 0.5:
            operator = rng.choice(["contains", "is not", "start with"])
            condition = {"name": ["document"], "comparison_operator": operator, "value": "手册"}
            body["metadata_condition"] = {"logical_operator": "or", "conditions": [condition]}
    elif kind == "feedback":
        path = "/feedback"
        body |= {"query": f"from {tenant}", "doc_id": "手册1.md#1", "clicked": False}
    elif kind == "read":
        method = "GET"
        path = PATH.format(quote(tenant_id, safe=rng.choice(["", "/"])))
        path += rng.choice(["", "/default", "/default/documents", f"/{quote(kb_name)}/documents/{quote('手册1.md')}"])
        path = rng.choice([path, path, path, "/healthz", "/openapi.json"])
    else:
        # A tenant may change what is its own: only others' are reached for.
        method = rng.choice(["PUT", "DELETE", "POST"])
        path = PATH.format(quote(TENANTS[victim], safe=rng.choice(["", "/"])))
        path += rng.choice(
            ["", "/default", f"/default/documents/{quote('手册1.md')}", "/x%2f..%2fdefault", "/faq/rebuild"]
        )
        body = {"name": "planted"}
    encoded = b"" if method in ("GET", "DELETE") else json.dumps(body).encode()
    return Attack(method, path, [*headers, (b"content-type", b"application/json")], encoded, {tenant} if own else set())
