"""The frozen judge of hits whose relevance nobody knows: one reranker, the same model for a whole run.

A reward that means another thing after a swap teaches the policy the swap. So the first reranker that answers, or the
one that `rewriter.reward.reranker` names, is pinned in the run's folder by the id that the service gives it (this
project's service: name@hash of the weights). A rollout judged by any other abstains; above `breaker.max_abstained` that
ends the run, and the same command goes on once the reranker is back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from reward.records.call import FailureKind
from reward.records.files import BadInput, write_json
from reward.records.outcome import Abstained, AbstainReason, Findings, Rollout, Scored

PIN_FILE = "reranker.json"
_HASH = re.compile(r"@[0-9a-f]{12,64}\b")


def has_hash(reranker: str) -> bool:
    """Return whether a reranker's id tells its weights: a name alone may serve others tomorrow."""
    return bool(_HASH.search(reranker))


class RerankerPin:
    """Pins the reranker of the run in `output_dir`.

    Args:
        named: the id of the only one that may judge, "" for the first that does.

    Raises:
        BadInput: the run's file is damaged, or holds another reranker than the one named.
    """

    def __init__(self, output_dir: Path, named: str):
        self._file = output_dir / PIN_FILE
        kept = _read(self._file)
        if named and kept and kept != named:
            raise BadInput(f"{self._file}: this run was judged by {kept}, but rewriter.reward.reranker is {named}")
        self.reranker = kept or named

    def held_to(self, rollout: Rollout) -> Rollout:
        """Return the rollout, as an abstention where another reranker judged it.

        Raises:
            OSError: the pin cannot be written.
        """
        if not isinstance(rollout.outcome, Scored) or rollout.sample.relevant_doc_ids:
            return rollout
        origins = _origins(rollout)
        if not origins:
            return rollout
        if not self.reranker:
            self.reranker = origins[0]
        if not self._file.is_file():
            write_json(self._file, {"reranker": self.reranker, "first_step": rollout.step})
        if origins == [self.reranker]:
            return rollout
        detail = (
            f"the reranker changed during the run: {self.reranker} is pinned ({self._file.name}), "
            f"{', '.join(origins)} judged: bring it back, or begin another run"
        )
        outcome = Abstained(reason=AbstainReason.RAG, failure=FailureKind.MALFORMED, detail=detail)
        return rollout.model_copy(update={"outcome": outcome})


def _origins(findings: Findings) -> list[str]:
    found = (findings.policy, findings.baseline, findings.plain)
    return sorted({one.origin for one in found if one is not None and one.top_hits and one.origin})


def _read(file: Path) -> str:
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["reranker"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{file}: damaged: remove it, and the next reranker that answers is pinned") from None
