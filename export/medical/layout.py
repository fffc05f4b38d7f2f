"""Where a round's files lie, below the root that all rounds share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROUND_FILE, ADVICE_FILE, ANSWERS_FILE, PLANTED_FILE, RECIPE_FILE = (
    "round.json", "rollback_advice.json", "answers.jsonl", "planted.jsonl", "recipe.yaml",
)  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One round: `<root>/data/rl`, `runs/<name>`, `models/rl/<name>`, `reports/rl_stage`, one ledger for all."""

    root: Path
    name: str

    @property
    def data(self) -> Path:
        return self.root / "data" / "rl"

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def model(self) -> Path:
        return self.root / "models" / "rl" / self.name

    @property
    def report(self) -> Path:
        return self.root / "reports" / "rl_stage" / f"eval_report_{self.name}.md"

    @property
    def samples(self) -> Path:
        """Of the sample report, without its suffix: .md and .csv."""
        return self.report.with_name(f"samples_{self.name}")

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"
