"""The prompts of the data: their lengths against the recipe's limits, and those without a baseline to compete with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig
from tokenizers import Tokenizer

from recipes.checks.finding import Finding, bad, ok, warning
from reward.records.sample import Sample

MOST_ROWS = 5000  # of a larger file the first so many
FRAME_TOKENS = 10  # what a chat template puts around a message
TOKENS_PER_CHARACTER = 0.8  # Chinese runs at 0.6 to 0.9; English below
TOO_MANY = 0.5  # share of RL prompts over the limit


@dataclass(frozen=True)
class Prompts:
    """Lengths in tokens (`counted` by the model's tokenizer, else estimated), and rows without a baseline.

    `lengths` are those of the text with the chat template around it, `frame` is the most that the template adds.
    """

    lengths: list[int]
    frame: int
    counted: bool
    without_baseline: int

    def quantile(self, share: float) -> int:
        ordered = sorted(self.lengths)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def read_prompts(path: Path, column: str, model: str) -> Prompts:
    """Read the messages of a parquet's first rows.

    Args:
        column: `prompt` (RL) or `messages` (SFT).
        model: its folder's `tokenizer.json` counts tokens; without one they are estimated from characters.
    """
    columns = [column] + (["extra_info"] if column == "prompt" else [])
    rows = next(pq.ParquetFile(path).iter_batches(MOST_ROWS, columns=columns)).to_pylist()
    texts = [[message["content"] or "" for message in row[column]] for row in rows]
    file = Path(model) / "tokenizer.json"
    if file.is_file():
        tokenizer = Tokenizer.from_file(str(file))
        encoded = tokenizer.encode_batch(["".join(messages) for messages in texts], add_special_tokens=False)
        lengths = [len(tokens.ids) for tokens in encoded]
    else:
        lengths = [round(TOKENS_PER_CHARACTER * sum(map(len, messages))) for messages in texts]
    frame = FRAME_TOKENS * (max(map(len, texts)) + 1)
    without = 0
    if column == "prompt":
        without = sum(not Sample.from_extra_info(row["extra_info"]).candidates.baseline for row in rows)
    return Prompts([length + frame for length in lengths], frame, file.is_file(), without)


def histogram(lengths: list[int], limit: int) -> str:
    """Say how many lengths lie in each quarter of the limit, and beyond it.

    >>> histogram([10, 90, 130], 100)
    '≤25: 1, ≤50: 0, ≤75: 0, ≤100: 1, more: 1'
    """
    edges = [limit * quarter // 4 for quarter in (1, 2, 3, 4)]
    below = [0, *edges]
    counts = [f"≤{high}: {sum(low < n <= high for n in lengths)}" for low, high in zip(below, edges, strict=False)]
    return ", ".join([*counts, f"more: {sum(n > limit for n in lengths)}"])


def prompt_findings(config: DictConfig, prompts: Prompts, *, live_baseline: bool = False) -> list[Finding]:
    """Compare the lengths with the limit, and count the rows without a baseline where the task needs one.

    Args:
        live_baseline: whether the tenant names a service that writes the missing rewrites.
    """
    rl = config.recipe.trainer == "rl"
    limit = config.data.max_prompt_length if rl else config.data.max_length
    key = "recipe.rl.max_prompt_tokens" if rl else "recipe.sft.max_tokens"
    how = "" if prompts.counted else ", estimated from characters"
    text = f"tokens {histogram(prompts.lengths, limit)}; median {prompts.quantile(0.5)}, longest {max(prompts.lengths)}"
    over = sum(length > limit for length in prompts.lengths)
    share = over / len(prompts.lengths)
    level = ok
    if over:
        # verl leaves long RL prompts out; a long SFT sample ends its trainer.
        surely = sum(length - prompts.frame > limit for length in prompts.lengths)
        grave = prompts.counted and (surely / len(prompts.lengths) > TOO_MANY if rl else surely > 0)
        level, text = (bad if grave else warning), f"{over} over {key}={limit} ({share:.1%}); {text}"
    findings = [level("prompts", f"{text}{how}")]
    if rl and config.rewriter.task != "rewrite":  # only rewriting competes with recorded rewrites
        return findings
    if missing := prompts.without_baseline:
        what = f"{missing} of {len(prompts.lengths)} prompts have no recorded baseline"
        if live_baseline:
            findings.append(warning("baseline", f"{what}; the tenant's baseline service writes them during the run"))
        else:
            remedy = "fill them with python -m data_prep.fill_baseline"
            findings.append((bad if missing == len(prompts.lengths) else warning)("baseline", f"{what}; {remedy}"))
    elif rl:
        findings.append(ok("baseline", "every prompt has its recorded baseline"))
    return findings
