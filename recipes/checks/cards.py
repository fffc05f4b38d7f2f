"""The GPUs of this machine, as nvidia-smi lists them, against what the recipe asks for."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

from omegaconf import DictConfig

from recipes.checks.finding import Finding, bad, ok, warning

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits")
SECONDS = 10.0
DRIVER = 580  # the first of CUDA 13.0, which the pinned torch is built for
MOST_USED_MIB = 1024  # a driver's own share; more is another program
# CUDA itself takes a little of what nvidia-smi calls the total: an H100 has 81559 MiB, torch sees 79.2 to 79.7 GiB.
USABLE = 0.995


@dataclass(frozen=True)
class Card:
    """One GPU; memory in MiB."""

    name: str
    total: int
    used: int
    driver: str

    @property
    def gib(self) -> float:
        return self.total * USABLE / 1024


def read_cards() -> list[Card] | str:
    """List this machine's GPUs; a reason where that cannot be done."""
    if shutil.which(QUERY[0]) is None:
        return "nvidia-smi is not there: no NVIDIA driver, or the container was started without --gpus all"
    try:
        ended = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer ({type(error).__name__})"
    if ended.returncode:
        said = (ended.stdout.strip() or ended.stderr.strip() or "no output").splitlines()[0]
        return f"nvidia-smi ends with {ended.returncode}: {said[:120]}"
    return parse_cards(ended.stdout)


def parse_cards(text: str) -> list[Card] | str:
    """Parse nvidia-smi's CSV (name, MiB in all, MiB used, driver); a reason when a line cannot be read."""
    cards = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if not row:
            continue
        try:
            name, total, used, driver = (cell.strip() for cell in row)
            cards.append(Card(name, int(total), int(used), driver))
        except ValueError:
            return f"nvidia-smi: cannot read {','.join(row)!r}"
    return cards or "nvidia-smi lists no GPU"


def card_findings(config: DictConfig, cards: list[Card] | str) -> list[Finding]:
    """Compare the cards with the recipe's number of them, its driver and memory."""
    if isinstance(cards, str):
        return [bad("GPUs", cards)]
    wanted = config.recipe.machine.gpus_per_node
    names = ", ".join(sorted({card.name for card in cards}))
    smallest = min(cards, key=lambda card: card.total)
    text = f"{len(cards)} x {names}, {smallest.gib:.1f} GiB, driver {smallest.driver}"
    if len(cards) < wanted:
        findings = [bad("GPUs", f"{text}; the recipe takes {wanted} (recipe.machine.gpus_per_node={len(cards)})")]
    else:
        findings = [ok("GPUs", text)]
    if len({card.total for card in cards}) > 1:
        findings.append(warning("GPUs", f"their memory differs; the smallest counts, {smallest.gib:.1f} GiB"))
    major = smallest.driver.split(".")[0]
    if not major.isdigit() or int(major) < DRIVER:
        needed = f"CUDA 13.0 needs {DRIVER} or newer, or its compatibility package"
        findings.append(bad("driver", f"{smallest.driver}; {needed}"))
    busy = [card for card in cards if card.used > MOST_USED_MIB]
    if busy:
        most = max(card.used for card in busy) / 1024
        findings.append(bad("GPUs", f"{len(busy)} in use by another program, up to {most:.1f} GiB: see nvidia-smi"))
    return findings


def card_gib(cards: list[Card] | str) -> float | None:
    """GiB of the smallest card; `None` without one."""
    return None if isinstance(cards, str) else min(card.gib for card in cards)
