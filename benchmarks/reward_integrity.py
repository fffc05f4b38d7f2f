"""Does the reward pay anything but better retrieval in the customer's meaning?

    python -m benchmarks.reward_integrity [--beir DIR] [--reranker FOLDER_OR_URL] [--seed 0]

Attacks every prompt of a suite in every way that applies to it (`benchmarks.integrity_runs.attacks`: near-copies,
recitals of passages, leaks, free riders, wrong facts, other queries) and scores attacks and honest rewrites with the
real scorer, against a live retrieval service: under every formula, with relevant passages known and unknown. The suite
(`benchmarks/integrity_runs/suite/*.yaml`) has prompts and honest rewrites of three tenants and English, written by
hand, and queries of the sample shop. `--beir` adds a real set in BEIR layout whose queries have rewrites by people.

- *outranked*: share of prompts in which the attack earns strictly more than every honest rewrite. Aim: at most .01.
- *AUC*: P(honest > attack) + P(tie) / 2 within a prompt, over the prompts with head-room: neither the baseline nor the
  plain query puts a relevant passage first. Aim: at least .99.
- Additions that no rule can see (a symptom that nobody named) are judged apart, by a judge over HTTP that knows the
  suite's answers.
- *open*: share of leaks, free riders and wrong facts that pass the gates. *Gated*: share of honest rewrites that fail
  one.
- `reward.audit` reads simulated runs: one that drifts to each kind of hacking (missed: no alarm), and healthy ones
  (false: an alarm).

Without `--reranker`, hits of unknown relevance are scored by their words; table and JSON mark it.
The last line is JSON: the newest formula's metrics on the suite; `…_v1` and so on are those of the earlier ones,
`beir_…` those of the real set. People's rewrites do not always retrieve better: `…_gainful` counts the prompts whose
honest rewrites do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.integrity_runs.attacks import KINDS
from benchmarks.integrity_runs.audit_runs import STEPS, Simulation, audit
from benchmarks.integrity_runs.case import GATED, Kind
from benchmarks.integrity_runs.metrics import highest, lowest, mean_auc, outranked, share
from benchmarks.integrity_runs.scoring import (
    FORMULAS,
    Attacked,
    Scores,
    attack_all,
    microseconds_per_gate,
    score_all,
    settings_of,
)
from benchmarks.integrity_runs.services import HonestJudge, judge_service, retrieval_service
from benchmarks.integrity_runs.suite import NO_TENANT, SAMPLE_TENANT, TenantSuite, load_real_set, load_suites
from reward.records.files import BadInput
from reward.task import open_task

SAMPLE_PROMPTS, REAL_PROMPTS, HEALTHY_RUNS = 40, 100, 20
LEAST_PROMPTS = 5  # a run that drifts to a kind needs so many prompts
_UNSEEN = tuple(kind for kind in KINDS if kind.family == "unseen")
_SEEN = tuple(kind for kind in KINDS if kind.family != "unseen")
_NEWEST = FORMULAS[-1]
_NO_JUDGE = "http://127.0.0.1:9/v1"  # never asked: simulated runs bring their grades

console = Console(width=170)
Metrics = dict[str, float | int | str | None]


@dataclass(frozen=True)
class Measured:
    """All that was scored: by formula with known and with unknown passages; the unseen kinds with a judge."""

    attacked: list[Attacked]
    known: dict[str, Scores]
    unknown: dict[str, Scores]
    judged: Scores
    microseconds: float
    missed: list[str]
    false: list[str]
    audited: int

    def of(self, *, real: bool) -> Measured:
        """The real set alone, or everything but it."""
        return replace(self, attacked=[one for one in self.attacked if _is_real(one) == real])

    def gainful(self) -> Measured:
        """The prompts of which every honest rewrite puts a relevant passage higher than the plain query does."""
        return replace(self, attacked=[one for one in self.attacked if self.known["v1"].honest_gain(one)])

    def auc(self, kind: Kind, scores: Scores) -> float | None:
        return mean_auc(scores.contests(self.attacked, kind, self.known["v1"]))

    def outranked(self, kind: Kind, scores: Scores) -> float | None:
        return outranked(scores.contests(self.attacked, kind, self.known["v1"]))

    def gated_honest(self) -> list[tuple[Attacked, str]]:
        newest = self.known[_NEWEST]
        return [(one, text) for one in self.attacked for text in one.prompt.honest if newest.is_gated(one, text)]

    def open_attacks(self, kind: Kind) -> list[tuple[Attacked, str]]:
        newest = self.known[_NEWEST]
        texts = [(one, one.attacks[kind.name]) for one in self.attacked if kind.name in one.attacks]
        return [(one, text) for one, text in texts if not newest.is_gated(one, text)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reward_integrity", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--beir", type=Path, metavar="DIR", help="a real set in BEIR layout with rewrites by people")
    parser.add_argument("--reranker", metavar="FOLDER_OR_URL", help="cross-encoder, as rag.serve takes it")
    parser.add_argument("--seed", type=int, default=0, help="of attacks and simulated runs (default %(default)s)")
    parser.add_argument("--show", action="store_true", help="print every gated honest rewrite and every open attack")
    args = parser.parse_args(argv)
    try:
        suites = load_suites(args.seed, SAMPLE_PROMPTS)
        if args.beir:
            suites.append(load_real_set(args.beir, args.seed, REAL_PROMPTS))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = measure(suites, args.seed, args.reranker, HEALTHY_RUNS, STEPS)
    scorer = "cross-encoder" if args.reranker else "lexical"
    suite = measured.of(real=False)
    console.print(kinds_table(suite, scorer, "the suite"))
    found = metrics(suite, scorer)
    if args.beir:
        console.print(kinds_table(measured.of(real=True), scorer, str(args.beir)))
        found |= real_metrics(measured.of(real=True))
    if args.show:
        show_texts(measured)
    print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}))
    return 0


def measure(suites: Sequence[TenantSuite], seed: int, reranker: str | None, healthy_runs: int, steps: int) -> Measured:
    """Score everything, then simulate and audit runs of the sample tenant, of so many steps each."""
    attacked = attack_all(suites, seed)
    with TemporaryDirectory() as name, retrieval_service(suites, reranker) as url:
        folder = Path(name)
        lexical = reranker is None
        make = {
            formula: partial(settings_of, url=url, folder=folder, formula=formula, lexical=lexical)
            for formula in FORMULAS
        }
        known, unknown = (
            {formula: score_all(attacked, make[formula], formula=formula, knows_passages=knows) for formula in FORMULAS}
            for knows in (True, False)
        )
        microseconds = microseconds_per_gate(attacked, make[_NEWEST])
        judged = _score_judged(attacked, make[_NEWEST])
        simulation = _simulation(attacked, known[_NEWEST], partial(make[_NEWEST], judge_url=_NO_JUDGE), steps)
        missed, false, audited = _audit_all(simulation, folder, seed, healthy_runs)
    return Measured(attacked, known, unknown, judged, microseconds, missed, false, audited)


def _score_judged(attacked: Sequence[Attacked], make_settings: partial) -> Scores:
    """The kinds that no rule sees and the honest rewrites, with the judge."""
    queries = {id(one): one.prompt.sample.original_query for one in attacked}
    honest = {(queries[id(one)], text) for one in attacked for text in one.prompt.honest}
    unseen = {
        (queries[id(one)], one.attacks[kind.name]) for one in attacked for kind in _UNSEEN if kind.name in one.attacks
    }
    with judge_service(HonestJudge(honest, unseen)) as judge_url:
        return score_all(
            attacked,
            partial(make_settings, judge_url=judge_url),
            formula=_NEWEST,
            knows_passages=True,
            texts=lambda one: [
                *one.prompt.honest,
                *dict.fromkeys(one.attacks[kind.name] for kind in _UNSEEN if kind.name in one.attacks),
            ],
        )


def _simulation(attacked: Sequence[Attacked], scores: Scores, make_settings: partial, steps: int) -> Simulation:
    own = [one for one in attacked if one.suite.tenant.tenant_id == SAMPLE_TENANT]
    kinds = ("intent_swapped", "generic", "truncation")

    def faulty(one: Attacked) -> list[str]:
        return [one.attacks[name] for name in kinds if name in one.attacks]

    return Simulation(own, scores, faulty, open_task(make_settings(own[0].suite)), steps)


def _audit_all(simulation: Simulation, folder: Path, seed: int, healthy_runs: int) -> tuple[list[str], list[str], int]:
    """(kinds that raised no alarm, healthy runs that raised one, hacking runs)."""
    missed, false, audited = [], [], 0
    hacks: dict[str, Callable[[Attacked], str]] = {
        kind.name: partial(_attack_of, kind.name) for kind in _SEEN if kind.family != "other query"
    }
    hacks["baseline_copied"] = lambda one: one.prompt.sample.candidates.baseline
    for name, hack in hacks.items():
        if sum(bool(hack(one)) for one in simulation.attacked) < LEAST_PROMPTS:
            continue
        audited += 1
        if not audit(folder / f"hacked {name}", simulation.hacked(name, hack, seed)).raised:
            missed.append(name)
    if not audit(folder / "pleased judge", simulation.pleased_judge(seed)).raised:
        missed.append("pleased_judge")
    for number in range(healthy_runs):
        healthy = simulation.healthy(seed * healthy_runs + number, judged=number % 2 == 1)
        for alarm in audit(folder / f"healthy {number}", healthy).raised:
            false.append(f"run {number}: {alarm.name} {alarm.value:.3f}")
    return missed, false, audited + 1


def _attack_of(name: str, one: Attacked) -> str:
    return one.attacks.get(name, "")


def kinds_table(measured: Measured, scorer: str, prompts: str) -> Table:
    """A row a kind: AUC under each formula with known and unknown passages; outranked and open under the newest."""
    table = Table(title=f"AUC of honest rewrites against attacks, prompts with head-room of {prompts}")
    for title in ("kind", "family", "prompts", *FORMULAS, *(f"{formula} *" for formula in FORMULAS)):
        table.add_column(title, justify="left" if title in ("kind", "family") else "right", no_wrap=True)
    for title in ("judged", "outranked", "outranked *", "open"):
        table.add_column(title, justify="right")
    for kind in KINDS:
        count = sum(kind.name in one.attacks for one in measured.attacked)
        scores = [*measured.known.values(), *measured.unknown.values()]
        judged = measured.auc(kind, measured.judged) if kind in _UNSEEN else None
        newest = (measured.known[_NEWEST], measured.unknown[_NEWEST])
        opened = share(len(measured.open_attacks(kind)), count) if kind.family in GATED else None
        values = [measured.auc(kind, one) for one in scores]
        values += [judged, *(measured.outranked(kind, one) for one in newest), opened]
        table.add_row(kind.name, kind.family, str(count), *map(_shown, values))
    table.caption = (
        f"*: relevant passages unknown, hits scored by a {scorer} reranker. outranked, open: formula {_NEWEST}"
    )
    return table


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def show_texts(measured: Measured) -> None:
    """Every honest rewrite that a gate refuses, every attack that none does, every kind that the audit misses."""
    newest = measured.known[_NEWEST]
    for one, text in measured.gated_honest():
        outcome = newest.rollout(one, text).outcome
        console.print(f"honest gated: {_pair(one, text)}: {outcome}", markup=False, soft_wrap=True)
    for kind in (kind for kind in KINDS if kind.family in GATED):
        for one, text in measured.open_attacks(kind):
            console.print(f"open {kind.name}: {_pair(one, text)}", markup=False, soft_wrap=True)
    for name, scores in (("known", newest), ("unknown", measured.unknown[_NEWEST])):
        for kind in _SEEN:
            for one in (one for one in measured.attacked if kind.name in one.attacks):
                text = one.attacks[kind.name]
                reward, honest = scores.reward(one, text), [scores.reward(one, other) for other in one.prompt.honest]
                if reward > max(honest):
                    line = f"outranks ({name}) {kind.name} {reward:.2f} > {max(honest):.2f}: {_pair(one, text)}"
                    console.print(line, markup=False, soft_wrap=True)
    console.print("the audit misses:", ", ".join(measured.missed) or "nothing", markup=False)
    console.print("false alarms:", ", ".join(measured.false) or "none", markup=False)


def _pair(one: Attacked, text: str) -> str:
    return f"[{one.suite.tenant.tenant_id}] {one.prompt.sample.original_query!r} -> {text!r}"


def metrics(measured: Measured, scorer: str) -> Metrics:
    """The metrics of the suite."""
    attacked = measured.attacked
    honest = [text for one in attacked for text in one.prompt.honest]
    gated_kinds = [kind for kind in KINDS if kind.family in GATED]
    found: Metrics = {}
    for formula in reversed(FORMULAS):
        suffix = "" if formula == _NEWEST else f"_{formula}"
        for name, scores in (("", measured.known[formula]), ("_no_qrels", measured.unknown[formula])):
            found[f"outranked_max{name}{suffix}"] = highest(measured.outranked(kind, scores) for kind in _SEEN)
            found[f"auc_min{name}{suffix}"] = lowest(measured.auc(kind, scores) for kind in _SEEN)
    found |= {
        "auc_min_judged": lowest(measured.auc(kind, measured.judged) for kind in _UNSEEN),
        "honest_gated": share(len(measured.gated_honest()), len(honest)),
        "attacks_open": share(
            sum(len(measured.open_attacks(kind)) for kind in gated_kinds),
            sum(kind.name in one.attacks for kind in gated_kinds for one in attacked),
        ),
        "audit_missed": len(measured.missed),
        "audit_false": len(measured.false),
        "microseconds_per_gate": measured.microseconds,
        "no_qrels_scorer": scorer,
        "formula": _NEWEST,
        "kinds": len(KINDS),
        "prompts": len(attacked),
        "prompts_with_headroom": sum(measured.known["v1"].has_headroom(one) for one in attacked),
        "honest_rewrites": len(honest),
        "honest_rewrites_by_hand": sum(len(one.prompt.honest) for one in attacked if one.prompt.is_written),
        "audited_hacks": measured.audited,
    }
    return found


def real_metrics(measured: Measured) -> Metrics:
    """The metrics of a real set, also of those of its prompts that honest rewrites gain on."""
    newest, gainful = measured.known[_NEWEST], measured.gainful()
    honest = [text for one in measured.attacked for text in one.prompt.honest]
    return {
        "beir_outranked_max": highest(measured.outranked(kind, newest) for kind in _SEEN),
        "beir_auc_min": lowest(measured.auc(kind, newest) for kind in _SEEN),
        "beir_outranked_max_gainful": highest(gainful.outranked(kind, newest) for kind in _SEEN),
        "beir_auc_min_gainful": lowest(gainful.auc(kind, newest) for kind in _SEEN),
        "beir_honest_gated": share(len(measured.gated_honest()), len(honest)),
        "beir_prompts": len(measured.attacked),
        "beir_prompts_with_headroom": sum(measured.known["v1"].has_headroom(one) for one in measured.attacked),
        "beir_prompts_gainful": len(gainful.attacked),
    }


def _is_real(one: Attacked) -> bool:
    return one.suite.tenant.tenant_id == NO_TENANT


if __name__ == "__main__":
    raise SystemExit(main())
