"""The options of `python -m evaluation.compare`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from evaluation.paid.plan import CNY_PER_USD
from evaluation.systems import BASELINE, DESCRIPTION, ORIGINAL
from reward.records.files import BadInput


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare on which samples, and where the results go.

    Args:
        test: held-out samples (JSONL).
        tenant: its name, or its YAML file.
        out: folder of `metrics.json`, `rewrites.jsonl`, the cache of rewrites and the ledger.
        models: name → Hugging Face model folder, or a trainer's checkpoint; the names are lower case and none of the
            fixed systems'.
        recorded: name → rewrites made elsewhere: a JSONL of `query`, `history_context`, `rewritten_query`; or FOLDER or
            FOLDER:SYSTEM of an earlier comparison.
        prompted: name → profile of a chat model that is asked for rewrites, or its YAML file.
        rag_url: retrieval service; None: the tenant's.
        max_new_tokens: of a model's rewrite; None: as many as its rollouts had in training.
        seed: of the bootstrap and the engine.
        train_log: `reward_metrics.jsonl` of the RL run.
        held_out_slices: slices left out of the headline metrics and reported by themselves.
        costs: JSON object of stage: {seconds, peak_gb}.
        judge: profile of an LLM judge, or its YAML file.
        force_judge: take it although it judged a model's training; the result is marked.
        labels: pairs that people labelled (JSONL of `CanaryPair`), to correct the judge's win rates.
        ledger: SQLite file of all paid calls; None: in `out`.
        max_cost: what this comparison may cost in all its runs together, in US dollars.
        usd_per_hour: price of this machine, for the cost of the models.
    """

    test: Path
    tenant: str
    out: Path
    models: Mapping[str, Path]
    recorded: Mapping[str, Path] = field(default_factory=dict)
    prompted: Mapping[str, str] = field(default_factory=dict)
    rag_url: str | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    train_log: Path | None = None
    held_out_slices: Sequence[str] = ()
    costs: Path | None = None
    judge: str | None = None
    force_judge: bool = False
    labels: Path | None = None
    ledger: Path | None = None
    max_cost: float | None = None
    usd_per_hour: float | None = None

    @property
    def ledger_file(self) -> Path:
        return self.ledger or self.out / "ledger.sqlite"

    @property
    def run_id(self) -> str:
        """Whose budget a paid call counts against: this comparison's, in all its runs."""
        return f"compare {self.out.resolve()}"

    @property
    def cny_per_usd(self) -> float:
        return CNY_PER_USD


def parse_options(argv: list[str] | None) -> CompareOptions:
    """Read the command line.

    Raises:
        BadInput: a system is not NAME=VALUE, or its name is taken.
    """
    args = vars(_parser().parse_args(argv))
    models = parse_systems("--model", "PATH", args.pop("model"), ())
    recorded = parse_systems("--recorded", "PATH", args.pop("recorded"), models)
    prompted = parse_systems("--prompted", "PROFILE", args.pop("prompted"), {*models, *recorded})
    for option, least in (("max_cost", 0.0), ("usd_per_hour", 0.0), ("max_new_tokens", 1)):
        if args[option] is not None and not least <= args[option] < inf:
            raise BadInput(f"--{option.replace('_', '-')} {args[option]:g}: expected {least:g} or more")
    if args["labels"] and not args["judge"]:
        raise BadInput("--labels: correct a judge's win rates, but no --judge is given")
    return CompareOptions(
        models={name: Path(path) for name, path in models.items()},
        recorded={name: Path(path) for name, path in recorded.items()},
        prompted=prompted,
        **args,
    )


def parse_systems(option: str, what: str, texts: Sequence[str], taken: Container[str]) -> dict[str, str]:
    """Turn NAME=VALUE texts into name → value.

    Raises:
        BadInput: a text is of another form, or its name is taken.
    """
    systems: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not re.fullmatch(r"[a-z0-9_]+", name) or not value:
            raise BadInput(f"{option} {text!r}: expected NAME={what}, the name in lower-case letters, digits and _")
        if "_vs_" in name:
            raise BadInput(f"{option} {text!r}: a name with _vs_ could be read as a pair of systems")
        if name in (ORIGINAL, DESCRIPTION, BASELINE) or name in systems or name in taken:
            raise BadInput(f"{option} {text!r}: the name {name!r} is taken")
        systems[name] = value
    return systems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.compare",
        description="Compare rewriters side by side on held-out samples: the original query, the deployed baseline, "
        "trained models, prompted models, rewrites made elsewhere.",
    )
    parser.add_argument("--test", type=Path, required=True, help="held-out samples (JSONL)")
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json, rewrites.jsonl and the cache")
    parser.add_argument("--rag-url", help="retrieval service (default: the tenant's)")
    systems = parser.add_argument_group("systems, each repeatable")
    several: dict[str, Any] = {"action": "append", "default": []}
    systems.add_argument(
        "--model", metavar="NAME=FOLDER", help="a Hugging Face model folder, or a checkpoint of the trainer", **several
    )
    systems.add_argument(
        "--recorded",
        metavar="NAME=FILE",
        help="rewrites made elsewhere: a JSONL, or FOLDER[:SYSTEM] of an earlier comparison",
        **several,
    )
    systems.add_argument(
        "--prompted", metavar="NAME=PROFILE", help="a chat model asked to rewrite (recipes/config/prompted)", **several
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: as many as in the model's training)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and the engine")
    parser.add_argument("--train-log", type=Path, help="reward_metrics.jsonl of the RL run")
    parser.add_argument(
        "--held-out-slices",
        nargs="+",
        default=[],
        metavar="SLICE",
        help="slices left out of the headline metrics and reported by themselves",
    )
    parser.add_argument("--costs", type=Path, help="JSON object of stage: {seconds, peak_gb}, for metrics.json")
    parser.add_argument("--usd-per-hour", type=float, metavar="X", help="price of this machine: cost of the models")
    judge = parser.add_argument_group("judge")
    judge.add_argument(
        "--judge", metavar="PROFILE", help="an LLM judge (recipes/config/judge), not the one of training"
    )
    judge.add_argument("--force-judge", action="store_true", help="take it although it judged the training")
    judge.add_argument("--labels", type=Path, metavar="FILE", help="labelled pairs (JSONL), to correct its win rates")
    paid = parser.add_argument_group("paid calls")
    paid.add_argument("--max-cost", type=float, metavar="USD", help="what all runs of this comparison may cost")
    paid.add_argument("--ledger", type=Path, metavar="FILE", help="of all paid calls (default: OUT/ledger.sqlite)")
    return parser
