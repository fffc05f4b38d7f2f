"""Score the expansions of a model, or of a file, by the rules of training: in all and by category.

    python -m evaluation.expansions --model outputs/rl/TENANT_expansion/final --out expansions.json
    python -m evaluation.expansions --file expansions.jsonl --out expansions.json --verbose

A model is asked with the prompt of training and answers greedily.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from data_prep.expansions.queries import Asked, Expanded, read_expansions, read_queries
from data_prep.expansions.scoring import Scored, common_deductions, score_all, summary
from evaluation.expansion_set import built_in
from evaluation.markdown_table import visible
from evaluation.rewriters.model_folder import check_vocabulary, ready_folder
from evaluation.systems import answer_limit, generate_in_child, model_hash
from reward.expansion.parser import parse
from reward.expansion.prompt import TEMPLATE, build_messages
from reward.expansion.rules import Preset
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, read_jsonl, write_json
from reward.settings.recipe import Language

_MANUAL = """\
queries
  --queries names a file: JSON lines with query and category, or samples of training; YAML of category: [queries]; or a
  query a line, under comments that name the category. Without it the built-in set is asked: 32 queries in 8 categories,
  in --language.

an existing file
  --file scores what any system wrote: JSON lines of query with expansion (the text) or output ([[kind, text], …]).

what is written
  --out holds the summary, the summary by category, how often each deduction was made, and every query with its lines,
  score, parts and deductions.
"""


@dataclass(frozen=True, kw_only=True)
class ExpansionOptions:
    """What to score.

    Args:
        model: Hugging Face model folder, training run or checkpoint; None: `file` is scored.
        file: expansions made elsewhere.
        queries: None: the built-in ones of `language`.
        preset, language: of the rules; language None: each query's own.
        verbose: print every query with its deductions.
    """

    out: Path
    model: Path | None = None
    file: Path | None = None
    queries: Path | None = None
    preset: Preset = "rules-v2"
    language: Language | None = None
    max_new_tokens: int | None = None
    verbose: bool = False


def evaluate(options: ExpansionOptions, console: Console) -> dict[str, Any]:
    """Score, print and write; return what is written.

    Raises:
        BadInput: an option or a file cannot be used, or the model cannot be run.
    """
    if (options.model is None) == (options.file is None):
        raise BadInput("name either --model or --file")
    if options.file is not None and options.queries is not None:
        raise BadInput("--queries: the queries of --file are its own")
    if options.out.suffix != ".json":
        raise BadInput(f"{options.out}: --out must end in .json")
    if options.model is not None:
        expanded, source = _generate(options.model, options, console)
    else:
        file = options.file
        assert file is not None
        expanded, source = read_expansions(file), {"file": str(file), "sha256": file_sha256(file)}
    rows = ((one.asked.id, one.asked.query, one.asked.category, one.expansion) for one in expanded)
    scored = score_all(rows, options.preset, options.language)
    found = report(scored, options.preset) | {"source": source, "prompt": TEMPLATE}
    write_json(options.out, found | {"rows": [one.to_record() for one in scored]})
    _print(console, scored, found, options.verbose)
    console.print(f"written: {options.out}", highlight=False)
    return found


def report(scored: Sequence[Scored], preset: Preset) -> dict[str, Any]:
    """Return the summary in all and by category, and how often each deduction was made."""
    categories = dict.fromkeys(one.category for one in scored)
    return {
        "preset": preset,
        "all": summary(scored),
        "categories": {name: summary([one for one in scored if one.category == name]) for name in categories},
        "deductions": common_deductions(scored),
    }


def _generate(model: Path, options: ExpansionOptions, console: Console) -> tuple[list[Expanded], dict[str, Any]]:
    """Write greedy expansions with the prompt of training."""
    asked = read_queries(options.queries) if options.queries else built_in(options.language or "en")
    folder = ready_folder("expander", model, options.out.parent / "merged")
    check_vocabulary(folder)
    limit = options.max_new_tokens or answer_limit(folder, model)
    answers = options.out.with_suffix(".answers.jsonl")
    with console.status(f"{model}: expanding {len(asked)} queries"):
        generate_in_child(folder, _prompts(asked), answers, "--max-new-tokens", str(limit))
    lines = [line for _, line in read_jsonl(answers)]
    answers.unlink()
    expanded = [Expanded(one, parse(line["rewrite"])) for one, line in zip(asked, lines, strict=True)]
    source = {
        "model": str(model),
        "model_sha256": model_hash(folder),
        "queries": str(options.queries) if options.queries else f"built-in ({options.language or 'en'})",
        "max_new_tokens": limit,
        "cut": sum(bool(line["cut"]) for line in lines) / len(lines),
        "tokens": round(sum(line["output_tokens"] for line in lines) / len(lines), 1),
    }
    return expanded, source


def _prompts(asked: Sequence[Asked]) -> list[str]:
    return [
        json.dumps({"sample_id": str(number), "messages": build_messages(one.query)}, ensure_ascii=False)
        for number, one in enumerate(asked)
    ]


def _print(console: Console, scored: Sequence[Scored], found: dict[str, Any], verbose: bool) -> None:
    table = Table(title=f"expansions by {found['preset']}", title_justify="left")
    for name in ("category", "queries", "valid", "mean", "excellent", "good", "below"):
        table.add_column(name, justify="left" if name == "category" else "right")
    for name, one in (*found["categories"].items(), ("all", found["all"])):
        ratings = one["ratings"]
        below = ratings["acceptable"] + ratings["poor"] + ratings["failed"]
        shares = (one["valid"], one["mean"], ratings["excellent"], ratings["good"], below)
        table.add_row(visible(name) or "without a category", f"{one['count']}", *(f"{share:.3f}" for share in shares))
    console.print(table)
    for one in scored if verbose else ():
        lines = [f"{one.rules.total:.3f} {one.rules.rating}: {one.query}", one.expansion.to_text()]
        lines += [f"not typed: {line}" for line in one.expansion.invalid]
        lines += [f"  {deduction}" for deduction in one.rules.deductions]
        console.print(visible("\n".join(lines)) + "\n", markup=False, highlight=False)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.expansions",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, help="model folder, training run or checkpoint")
    add("--file", type=Path, help="expansions made elsewhere (.jsonl)")
    add("--queries", type=Path, help="queries in categories (default: the built-in set)")
    add("--out", type=Path, required=True, help="result (.json)")
    add("--preset", choices=get_args(Preset), default="rules-v2")
    add("--language", choices=get_args(Language), help="of rules and built-in queries (default: each query's own; en)")
    add("--max-new-tokens", type=int, help="default: that of the model's training")
    add("--verbose", action="store_true", help="print every query with its lines and deductions")
    evaluate(ExpansionOptions(**vars(parser.parse_args(argv))), Console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
