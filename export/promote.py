"""Decide whether a model replaces the one in service, record the decision, and make the model the champion.

    python -m export.promote --tenant fivedoctors --run outputs/eval/fivedoctors --model outputs/rl/fivedoctors/final

Holds the evaluation's `metrics.json` and the audit of the training run to the tenant's rules (`promotion` in its
settings). PROMOTE: every rule passes. HOLD: a figure is missing, or an interval leaves both answers open. REJECT: a
rule is broken. ROLLBACK: the model is the champion and breaks one; the version before it takes its place.

Every decision is a signed line of `<registry>/<tenant>/decisions.jsonl` (key: the environment variable that the
settings name). A promoted model is copied into the registry; `champion.json` beside it names it.
`--force --reason TEXT` promotes against the rules, but never against a safety floor that is broken.

Exit code 0: promoted, or the champion passes again; 1: not; 2: bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.markdown_table import visible
from evaluation.systems import model_hash
from export.versions.decisions import read_key
from export.versions.evidence import Evidence, Missing, read_evidence
from export.versions.registry import Registry, open_registry
from export.versions.rules import Candidate, Finding, check_rules, verdict_of
from reward.audit import audit_run
from reward.records.commands import command
from reward.records.files import BadInput
from reward.rollouts.alarm import AlarmLimits
from reward.settings.recipe import load_tenant

REGISTRY = Path("outputs/registry")
STYLES = {"pass": "green", "hold": "yellow", "reject": "red", "off": "dim"}

console = Console(markup=False, highlight=False)


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """What to decide about.

    Args:
        tenant: its name, or its YAML file.
        run: folder of the evaluation's `metrics.json`.
        model: Hugging Face model folder, one of those that the evaluation compared.
        registry: folder of all tenants' versions.
        training_run: folder with the training's rollouts; None: the folder that holds `model`.
        force: promote though the rules say otherwise.
        reason: why; recorded.
    """

    tenant: str
    run: Path
    model: Path
    registry: Path = REGISTRY
    training_run: Path | None = None
    force: bool = False
    reason: str = ""


@command
def main(argv: list[str] | None = None) -> int:
    record = promote(PromoteOptions(**vars(_parse_args(argv))))
    print_decision(record)
    return 0 if record["verdict"] == "PROMOTE" else 1


def promote(options: PromoteOptions) -> dict[str, Any]:
    """Decide, record, move the champion. Returns the recorded decision.

    Raises:
        BadInput: an option or a file cannot be used, or the evaluation did not compare this model.
    """
    if options.force and not options.reason.strip():
        raise BadInput("--force: needs --reason, which the ledger keeps")
    tenant = load_tenant(options.tenant)
    settings = tenant.promotion
    key = read_key(settings.key_env)
    evidence, metrics_sha256 = read_evidence(options.run)
    _check_tenant(evidence, tenant.tenant_id, options.run)
    sha256 = model_hash(options.model)
    system = evidence.system_of(sha256)
    if system is None:
        raise BadInput(f"{options.run}: compares no model with the files of {options.model}; evaluate it first")
    alarms, audit_missing = _audit(options.training_run or options.model.resolve().parent)

    # From here on nobody else decides: the champion that the rules see is the one that is replaced.
    with open_registry(options.registry, tenant.tenant_id, key) as registry:
        champion = registry.champion
        is_champion = champion is not None and champion["model_sha256"] == sha256
        against = None if champion is None or is_champion else evidence.system_of(champion["model_sha256"])
        candidate = Candidate(
            system=system,
            champion=against,
            champion_missing=champion is not None and not is_champion and against is None,
            alarms=alarms,
            audit_missing=audit_missing,
        )
        findings = check_rules(evidence, candidate, settings)
        return registry.decide(
            {
                **_outcome(registry, findings, options, sha256, is_champion=is_champion),
                "model": str(options.model.resolve()),
                "model_sha256": sha256,
                "system": system,
                "champion": None if champion is None else champion["version"],
                "run": str(options.run.resolve()),
                "metrics_sha256": metrics_sha256,
                "findings": [finding.as_record() for finding in findings],
                "rules": settings.model_dump(),
            }
        )


def print_decision(record: Mapping[str, Any]) -> None:
    """Print a line a rule, with its reason, then the verdict."""
    width = max(len(finding["rule"]) for finding in record["findings"])
    for finding in record["findings"]:
        line = f"{finding['outcome']:<7} {finding['rule']:<{width}}  {finding['reason']}"
        console.print(visible(line), style=STYLES[finding["outcome"]], soft_wrap=True)
    verdict = f"{record['verdict']}{' (forced)' if record['forced'] else ''}: {record['note']}"
    console.print(visible(verdict), soft_wrap=True)


def _outcome(
    registry: Registry, findings: Sequence[Finding], options: PromoteOptions, sha256: str, *, is_champion: bool
) -> dict[str, Any]:
    """Return verdict, note and where the champion moves; copies the model where it is promoted."""
    by_rules = verdict_of(findings, is_champion=is_champion)
    broken_floors = [finding.rule for finding in findings if finding.floor and finding.outcome == "reject"]
    forced = options.force and by_rules != "PROMOTE" and not broken_floors
    verdict = "PROMOTE" if forced else by_rules
    decision = {"verdict": verdict, "by_rules": by_rules, "forced": forced, "reason": options.reason, "moves_to": None}
    if verdict == "PROMOTE" and is_champion:
        return {**decision, "note": f"{registry.champion['version']} is the champion and stays it"}  # type: ignore[index]
    if verdict == "PROMOTE":
        version, folder = registry.keep(options.model, sha256)
        moves_to = {"version": version, "model": str(folder), "model_sha256": sha256}
        return {**decision, "moves_to": moves_to, "note": f"{version} is the champion ({folder})"}
    if verdict == "ROLLBACK":
        return {**decision, **roll_back_to(registry, registry.previous)}
    named = [finding.rule for finding in findings if finding.outcome == ("reject" if verdict == "REJECT" else "hold")]
    note = ", ".join(named)
    if options.force and broken_floors:
        note += " (a broken safety floor cannot be forced)"
    return {**decision, "note": note}


def roll_back_to(registry: Registry, target: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the note and `moves_to` of a rollback to `target`; the champion stays where that is impossible."""
    if target is None:
        return {"moves_to": None, "note": "no earlier version is there to serve: the champion stays, act by hand"}
    if problem := registry.problem_of(target):
        return {"moves_to": None, "note": f"{target['version']} cannot be served: {problem}; the champion stays"}
    moves_to = {name: target[name] for name in ("version", "model", "model_sha256")}
    return {"moves_to": moves_to, "note": f"{target['version']} is the champion again ({target['model']})"}


def _audit(run: Path) -> tuple[list[str] | None, str]:
    """Return the names of the alarms that `reward.audit` raises about a training run; None and why it cannot."""
    try:
        audit = audit_run(run, AlarmLimits())
    except (BadInput, OSError) as problem:
        return None, str(problem)
    if not audit.raised and not any(alarm.name != "judge_drift" for alarm in audit.alarms):
        return None, f"{run}: too few rollouts to compare the run's end with its beginning"
    return [alarm.name for alarm in audit.raised], ""


def _check_tenant(evidence: Evidence, tenant_id: str, run: Path) -> None:
    try:
        of = evidence.at("provenance", "tenant")
    except Missing:
        of = "no tenant"
    if of != tenant_id:
        raise BadInput(f"{run}: is an evaluation of {of}, not of {tenant_id}")


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--run", type=Path, required=True, help="folder of the evaluation's metrics.json")
    parser.add_argument("--model", type=Path, required=True, help="model folder that the evaluation compared")
    parser.add_argument("--registry", type=Path, default=REGISTRY, help=f"folder of the versions (default {REGISTRY})")
    parser.add_argument("--training-run", type=Path, help="folder with the rollouts (default: the one above --model)")
    parser.add_argument("--force", action="store_true", help="promote against the rules, safety floors excepted")
    parser.add_argument("--reason", default="", help="why; kept in the ledger, needed with --force")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
