"""Write a run's finished rollouts as canonical RL records, one JSON object a line.

    python -m reward.export_rollouts --run outputs/rl/fivedoctors --out outputs/rl/fivedoctors/rollouts.jsonl

A record is the sample with both candidates, what each retrieved (the first three hits with their contents), the judge's
verdicts, winner and margin, and the reward. It reads the run's log and its ledger, which may be in use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward.ledger.ledger_file import open_to_read, read_passage
from reward.records.commands import command
from reward.records.files import writing_lines
from reward.records.outcome import Abstained, Evidence, Judgement, Rollout, Scored, Verdict
from reward.records.sample import Candidates, Hit, RetrievalResults, Sample
from reward.rollouts.rollout_log import read_rollouts

DESCRIPTION = "Write a run's finished rollouts as canonical RL records: both candidates, hits, verdicts, reward."
LEDGER = "ledger.sqlite"


@dataclass
class Exported:
    """What was written: records, hits in them, and hits whose content the ledger does not hold."""

    records: int = 0
    hits: int = 0
    without_content: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reward.export_rollouts", description=DESCRIPTION)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's output folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the records (.jsonl)")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help=f"the run's ledger (default: DIR/{LEDGER})")
    args = parser.parse_args(argv)
    exported = export_rollouts(args.run, args.out, args.ledger)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(exported.outcomes.items()))
    print(f"{args.out}: {exported.records} records ({kinds})")
    if exported.without_content:
        lacking = f"{exported.without_content} of {exported.hits} hits without content"
        print(f"warning: {lacking}: the ledger does not hold it", file=sys.stderr)
    return 0


def export_rollouts(run: Path, out: Path, ledger: Path | None = None) -> Exported:
    """Write the canonical record of every rollout of `run` to `out`; return what was written.

    Args:
        ledger: that the run used; None: `ledger.sqlite` in its folder. Without that file hits have no contents.

    Raises:
        BadInput: the run has no log, a line of it or the ledger cannot be read, or `out` cannot be written.
    """
    exported = Exported()
    path = ledger or run / LEDGER
    if ledger is None and not path.is_file():
        _write(run, out, lambda key: None, exported)
        return exported
    with closing(open_to_read(path)) as db:
        _write(run, out, lambda key: read_passage(db, path, key), exported)
    return exported


def _write(run: Path, out: Path, content_of: Callable[[str], str | None], exported: Exported) -> None:
    with writing_lines(out) as write:
        for rollout in read_rollouts(run):
            record = canonical_sample(rollout, content_of)
            write(record.to_json())
            # Count what was written, for the reader.
            kind = rollout.outcome.kind
            exported.records += 1
            exported.outcomes[kind] = exported.outcomes.get(kind, 0) + 1
            hits = (*record.retrieval_results.policy, *record.retrieval_results.baseline)
            exported.hits += len(hits)
            exported.without_content += sum(not hit.content for hit in hits)


def canonical_sample(rollout: Rollout, content_of: Callable[[str], str | None] = lambda key: None) -> Sample:
    """Return the rollout as the canonical RL record: the sample with candidates, results, evaluation and reward.

    `evaluation` holds `None` for what is not known: scores of a pairwise judgement, `recall_at_3` without relevant
    passages, all of it for an abstained rollout. `winner` is `qwen_8b`, `qwen_32b` or `tie`, by 综合得分, else by the
    pairwise preference. `outcome` says whether the rollout was scored, gated or abstained, and why.

    Args:
        content_of: a passage's content by its key (`Evidence.passages`), None where it is not known.
    """
    judgement = rollout.judgement
    policy_score = judgement.policy_score if judgement else None
    baseline_score = judgement.baseline_score if judgement else None
    margin = None if policy_score is None or baseline_score is None else round(policy_score - baseline_score, 4)
    lead = margin if margin is not None else judgement.preference if judgement else None
    evaluation: dict[str, Any] = {
        "gpt5_scores": {
            "qwen_8b": _verdict(judgement.policy if judgement else None, policy_score),
            "qwen_32b": _verdict(judgement.baseline if judgement else None, baseline_score),
        },
        "retrieval_metrics": {
            "qwen_8b": _retrieval_metrics(rollout.policy, rollout.sample),
            "qwen_32b": _retrieval_metrics(rollout.baseline, rollout.sample),
        },
        "winner": None if lead is None else "tie" if lead == 0 else "qwen_8b" if lead > 0 else "qwen_32b",
        "margin": None if margin is None else abs(margin),
        "outcome": _outcome(rollout),
    }
    if judgement and judgement.preference is not None:
        evaluation["preference"] = _preference(judgement)
    return rollout.sample.model_copy(
        update={
            "candidates": Candidates(policy=rollout.completion.strip(), baseline=rollout.baseline_rewrite),
            "retrieval_results": RetrievalResults(
                policy=_hits(rollout.policy, content_of), baseline=_hits(rollout.baseline, content_of)
            ),
            "evaluation": evaluation,
            "reward": None if isinstance(rollout.outcome, Abstained) else rollout.outcome.reward,
        }
    )


def _hits(evidence: Evidence | None, content_of: Callable[[str], str | None]) -> tuple[Hit, ...]:
    if evidence is None:
        return ()
    # Logs of earlier runs name no passages.
    contents = [content_of(key) for key in evidence.passages] or [None] * len(evidence.top_hits)
    pairs = zip(evidence.top_hits, contents, strict=True)
    return tuple(hit.model_copy(update={"content": content or hit.content}) for hit, content in pairs)


def _verdict(verdict: Verdict | None, score: float | None) -> dict[str, Any] | None:
    """Return the four grades, 综合得分 and the reason; the score alone, or None, where no more is known."""
    if verdict is None:
        return None if score is None else {"综合得分": score}
    grades = verdict.model_dump(by_alias=True, exclude_none=True)
    reason = grades.pop("评分理由")
    return {**grades, "综合得分": verdict.overall if score is None else score, "评分理由": reason}


def _preference(judgement: Judgement) -> dict[str, Any]:
    return {"preference": judgement.preference, "orders_agree": judgement.orders_agree, "意图保持": judgement.intent}


def _outcome(rollout: Rollout) -> dict[str, Any]:
    outcome = rollout.outcome
    if isinstance(outcome, Scored):
        return {"kind": outcome.kind}
    return {"kind": outcome.kind, "reason": outcome.reason.value, "detail": outcome.detail}


def _retrieval_metrics(evidence: Evidence | None, sample: Sample) -> dict[str, float | None]:
    """Return the metrics of the first three hits; `recall_at_3` is the share of the relevant passages among them."""
    if evidence is None:
        return {"top1_score": None, "avg_top3_score": None, "recall_at_3": None}
    scores = [hit.relevance for hit in evidence.top_hits]
    relevant = set(sample.relevant_doc_ids)
    found = relevant & {hit.doc_id for hit in evidence.top_hits}
    return {
        "top1_score": evidence.top1,
        "avg_top3_score": sum(scores) / len(scores) if scores else 0.0,
        "recall_at_3": len(found) / len(relevant) if relevant else None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
