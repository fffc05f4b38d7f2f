"""The prompts that are attacked: hand-written ones of four tenants, the sample shop's, and a real set's.

A prompt is a `Sample` with its relevant passage and its baseline, and the honest rewrites of it. The hand-written ones
are in `suite/*.yaml`, with the passages that answer them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from examples.fivedoctors.generate_sample_data import load_contexts, load_intents, load_yaml, write_sample_data
from reward.records.files import BadInput, read_jsonl, write_atomically
from reward.records.sample import Candidates, Context, Metadata, Sample
from reward.settings.recipe import TENANT_CONFIGS, TenantSettings, load_tenant

FOLDER = Path(__file__).with_name("suite")
SAMPLE_TENANT = "fivedoctors"
NO_TENANT = "beir"  # whose settings a tenant without a file of its own gets


@dataclass(frozen=True)
class Prompt:
    """`passage` is the text that answers it; `wrong` holds hand-written attacks by kind (`integrity_runs.attacks`)."""

    sample: Sample
    honest: tuple[str, ...]
    passage: str
    wrong: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_written: bool = True


@dataclass(frozen=True)
class TenantSuite:
    """One tenant's prompts and knowledge base (passage id -> text).

    Args:
        products: names that a product swap exchanges.
        groups: of people; the first name of each is what an attack invents, the others are what may stand for it.
    """

    tenant: TenantSettings
    passages: Mapping[str, str]
    prompts: tuple[Prompt, ...]
    products: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    def write_corpus(self, folder: Path) -> None:
        """Write the passages as the corpus.jsonl that `rag.build_index` reads."""
        rows = ({"_id": name, "text": text} for name, text in self.passages.items())
        write_atomically(folder / "corpus.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))


def load_suites(seed: int, sample_prompts: int) -> list[TenantSuite]:
    """Every tenant's suite; the sample shop's is joined by `sample_prompts` of its generated queries.

    Raises:
        BadInput: a suite names a relevant passage that does not exist.
    """
    return [_load_suite(path, seed, sample_prompts) for path in sorted(FOLDER.glob("*.yaml"))]


def _load_suite(path: Path, seed: int, sample_prompts: int) -> TenantSuite:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    groups = tuple(map(tuple, values.get("groups", ())))
    passages: dict[str, str] = values["passages"]
    prompts: list[Prompt] = []
    if path.stem == SAMPLE_TENANT:
        sampled, prompts = _sample_shop(seed, sample_prompts, [name for group in groups for name in group])
        passages = {**sampled, **passages}
    written = []
    for number, row in enumerate(values["prompts"], start=1):
        if row["relevant"] not in passages:
            raise BadInput(f"{path}: prompt {number}: relevant: no passage {row['relevant']!r}")
        sample = Sample(
            sample_id=f"{path.stem}_{number:03d}",
            original_query=row["query"],
            context=Context(history_context=row.get("history", ""), user_profile=row.get("profile", "")),
            metadata=Metadata(tenant_id=values["tenant"]),
            candidates=Candidates(baseline=row["baseline"]),
            relevant_doc_ids=(row["relevant"],),
        )
        wrong = {kind: tuple(texts) for kind, texts in row.get("wrong", {}).items()}
        written.append(Prompt(sample, tuple(row["honest"]), passages[row["relevant"]], wrong))
    return TenantSuite(
        _tenant(values["tenant"], values.get("settings", {})),
        passages,
        (*written, *prompts),
        tuple(values["products"]),
        groups,
    )


def _sample_shop(seed: int, count: int, group_names: Sequence[str]) -> tuple[dict[str, str], list[Prompt]]:
    """The sample shop's passages, and `count` of its held-out queries.

    Honest is what its own recorded rewriter writes where it does not err: the product, and what the passages call the
    intent, in both surface forms. That loses the group of people of a query that names one, so such queries stay out.
    """
    with TemporaryDirectory() as folder:
        write_sample_data(Path(folder), seed)
        rows = {
            name: [row for _, row in read_jsonl(Path(folder) / f"{name}.jsonl")]
            for name in ("corpus", "queries_heldout", "baseline_rewrites")
        }
        qrels = dict(line.split("\t")[:2] for line in (Path(folder) / "qrels.tsv").read_text("utf-8").splitlines()[1:])
    passages = {row["_id"]: row["text"] for row in rows["corpus"]}
    baselines = {row["query_id"]: row["rewritten_query"] for row in rows["baseline_rewrites"]}
    nicknames = {product["id"]: product["nickname"] for product in load_yaml("products.yaml")}
    intents = {intent.id: intent for intent in load_intents()}
    generic = load_contexts().generic_rewrites
    chance = random.Random(f"sample shop {seed}")
    prompts = []
    queries = [row for row in rows["queries_heldout"] if not any(name in row["query"] for name in group_names)]
    for row in chance.sample(queries, count):
        relevant = qrels[row["query_id"]]
        product, intent = relevant.split(".")
        nickname = nicknames[product]
        others = chance.sample([other.keyword for other in intents.values() if other.id != intent], 2)
        sample = Sample(
            sample_id=row["query_id"],
            original_query=row["query"],
            context=Context(
                user_profile=row["user_profile"],
                history_summary=row["history_summary"],
                history_context=row["history_context"],
            ),
            metadata=Metadata(tenant_id=SAMPLE_TENANT),
            candidates=Candidates(baseline=baselines[row["query_id"]]),
            relevant_doc_ids=(relevant,),
        )
        wrong = {
            "intent_swapped": tuple(f"{nickname} {keyword}" for keyword in others),
            "generic": tuple(pattern.format(p=nickname) for pattern in generic),
        }
        honest = tuple(pattern.format(p=nickname) for pattern in intents[intent].rewrites)
        prompts.append(Prompt(sample, honest, passages[relevant], wrong, is_written=False))
    return passages, prompts


def load_real_set(folder: Path, seed: int, count: int, unseen: bool = False) -> TenantSuite:
    """At most `count` prompts of a set in BEIR layout (corpus.jsonl, queries.jsonl, qrels.tsv) with rewrites by people.

    A query that has `rewrite` is honest as that, its `history` being the context. Of a query that has `descriptions`,
    the long text is what was asked, and the short one (`text`) its honest rewrite. The baseline is the text asked:
    a rewriter that changes nothing.

    Args:
        unseen: leave out the queries whose `split` is not dev: a reranker trained on the set has seen them.

    Raises:
        BadInput: a file is missing or damaged, or no query has a rewrite.
    """
    passages = {row["_id"]: _passage(row) for _, row in read_jsonl(folder / "corpus.jsonl")}
    relevant: dict[str, list[str]] = {}
    path = folder / "qrels.tsv"
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if int(grade) > 0 and passage in passages:
            relevant.setdefault(query, []).append(passage)
    prompts = []
    for _, row in read_jsonl(folder / "queries.jsonl"):
        if unseen and row.get("split", "dev") != "dev":
            continue
        asked, honest, history = row["text"], row.get("rewrite"), row.get("history", ())
        if not honest and row.get("descriptions"):
            asked, honest = row["descriptions"][0], row["text"]
        if not honest or honest == asked or row["_id"] not in relevant:
            continue
        turns = (f"{'助手' if turn % 2 else '用户'}: {text}" for turn, text in enumerate(history))
        sample = Sample(
            sample_id=row["_id"],
            original_query=asked,
            context=Context(history_context="\n".join(turns)),
            metadata=Metadata(tenant_id=NO_TENANT),
            candidates=Candidates(baseline=asked),
            relevant_doc_ids=tuple(relevant[row["_id"]]),
        )
        prompts.append(Prompt(sample, (honest,), passages[relevant[row["_id"]][0]], is_written=False))
    if not prompts:
        raise BadInput(f"{folder / 'queries.jsonl'}: no judged query has `rewrite` or `descriptions`")
    chosen = random.Random(f"real set {seed}").sample(prompts, min(count, len(prompts)))
    return TenantSuite(load_tenant(NO_TENANT), passages, tuple(chosen))


def _passage(row: Mapping[str, Any]) -> str:
    return "\n".join(part for part in (row.get("title", ""), row["text"]) if part)


def _tenant(tenant_id: str, settings: Mapping[str, Any]) -> TenantSettings:
    """A shipped tenant's settings; of another one those in the suite, as far as a tenant has such settings."""
    if (TENANT_CONFIGS / f"{tenant_id}.yaml").is_file():
        return load_tenant(tenant_id)
    own = {name: value for name, value in settings.items() if name in TenantSettings.model_fields}
    names = {"tenant_id": tenant_id, "short_id": tenant_id}
    return TenantSettings.model_validate(load_tenant(NO_TENANT).model_dump() | names | own)
