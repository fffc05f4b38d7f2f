"""Let a large model write examples of query expansion: behind an OpenAI-compatible API, or from a folder here.

    python -m data_prep.generate_expansions --queries queries.txt --expander deepseek_v3 --max-cny 20 --out made.jsonl
    python -m data_prep.generate_expansions --queries queries.txt --model models/Qwen3-8B --out made.jsonl

What it writes is checked and scored by the rules of training.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.baseline.asking import AskingBar, ask_each, probe, run_until_stopped
from data_prep.expansions.examples import Example
from data_prep.expansions.queries import Asked, read_queries
from data_prep.expansions.teacher import CNY_PER_USD, Teacher, asked_query, load_teacher, parse_answer, system_prompt
from data_prep.questions.split import bare
from plain_text.text_file import open_text
from reward.expansion.language import language_of
from reward.expansion.rules import score
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import FailureKind, ServiceFailure
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically, writing_lines
from reward.settings.recipe import BudgetLimits, LedgerSettings

RUN_ID = "generate_expansions"
MAX_NEW_TOKENS = 400
TEMPERATURE = 0.7
_PROBLEMS_SHOWN = 3

_MANUAL = """\
queries
  As `evaluation.expansions` reads them: a text file with a query a line, whose comments (#) name categories; JSON lines
  with `query`, and `id` and `category` where they are known; or YAML of category: [queries]. Each query is asked once.
  It is sent in one line, with personal data masked.

what is written
  <out>                   an example a line: id, query, output, category, the model, its score by rules
  <out>.quarantine.jsonl  queries without a usable expansion, and why
  <out>.ledger.sqlite     every call, its answer and its cost (--ledger names another)

stopping and resuming
  After Ctrl-C, SIGTERM or kill -9, and when calls failed or the budget was spent, the same command asks only for what
  is missing. An answer that is not in the form is asked for again, as often as the profile's `attempts` says.

exit codes
  0 written; 2 bad input, or no query has an expansion: one line says why; 130, 143 stopped by Ctrl-C or SIGTERM
"""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Which queries, and who expands them.

    Args:
        expander: name or YAML file of a chat model's profile; None: `model` is asked.
        model: Hugging Face model folder, asked with vLLM on this machine.
        prompt: file of the system message; None: that of each query's language.
        ledger: None: beside `out`.
        max_cny, max_calls: what this command may spend, earlier runs with the same ledger included.
        least_score: examples whose score by rules is below go to the quarantine, in [0, 1].
    """

    queries: Path
    out: Path
    expander: str | None = None
    model: Path | None = None
    prompt: Path | None = None
    ledger: Path | None = None
    max_cny: float | None = None
    max_calls: int | None = None
    least_score: float = 0.0


def queries_to_send(path: Path) -> list[Asked]:
    """Read the queries as they are sent: one line, personal data masked; of several alike the first.

    Raises:
        BadInput: the file cannot be read, or a query is empty or too long.
    """
    wanted: dict[str, Asked] = {}
    for one in read_queries(path):
        try:
            query = asked_query(one.query)
        except BadInput as problem:
            raise BadInput(f"{path}: {one.id}: {problem}") from None
        wanted.setdefault(bare(query), replace(one, query=query))
    return list(wanted.values())


def generate(options: GenerateOptions) -> None:
    """Ask for every expansion that is missing, and write what is there.

    Raises:
        BadInput: an option or a file cannot be used, or no query has an expansion.
        Stopped: a signal came; the answers so far are in the ledger.
    """
    if (options.expander is None) == (options.model is None):
        raise BadInput("name either --expander or --model")
    if not 0 <= options.least_score <= 1:
        raise BadInput(f"--least-score {options.least_score:g}: outside [0, 1]")
    for name, limit in (("--max-cny", options.max_cny), ("--max-calls", options.max_calls)):
        if limit is not None and not limit >= 0:
            raise BadInput(f"{name} {limit}: must be 0 or more")
    prompt = read_prompt(options.prompt)
    wanted = queries_to_send(options.queries)
    if options.model is not None:
        answers = _ask_folder(options.model, wanted, prompt, options.out)
        _write(options, wanted, answers, str(options.model))
        return
    settings = load_teacher(str(options.expander))
    if options.max_cny is not None and settings.price is None:
        raise BadInput(f"--max-cny: profile {options.expander} names no price; --max-calls bounds it")
    ledger = LedgerSettings(
        path=options.ledger or options.out.with_name(options.out.name + ".ledger.sqlite"),
        run_id=RUN_ID,
        run=BudgetLimits(cny=options.max_cny, calls=options.max_calls),
    )
    with closing(Ledger(ledger)) as opened:
        teacher = Teacher(settings, Calls(opened), CNY_PER_USD)
        probe("expander", settings.base_url)
        answers = asyncio.run(_ask_all(teacher, wanted, prompt, settings.max_concurrency))
    _write(options, wanted, answers, settings.service)


async def _ask_all(
    teacher: Teacher, wanted: Sequence[Asked], prompt: str | None, at_once: int
) -> list[str | ServiceFailure]:
    """Return the typed lines for each query, or why there are none."""
    answers: list[str | ServiceFailure] = []
    made: Counter[str] = Counter()
    yuan = 0.0

    async def ask(one: Asked) -> Any:
        return await teacher.expand(one.query, prompt)

    try:
        with AskingBar(len(wanted)) as bar:

            def take(answer: Any) -> None:
                nonlocal yuan
                failed = isinstance(answer.value, ServiceFailure)
                answers.append(answer.value if failed else str(answer.value["expansion"]))
                made[answer.source] += 1
                yuan += answer.cost
                bar.advance(failed=failed)

            await ask_each(wanted, ask, take, at_once=at_once)
    finally:
        await teacher.aclose()
    print(f"asked {made['made']}, from the ledger {made['stored'] + made['joined']}; ¥{yuan:.2f}")
    return answers


def _ask_folder(model: Path, wanted: Sequence[Asked], prompt: str | None, out: Path) -> list[str | ServiceFailure]:
    """Draw one expansion a query with vLLM, in a process of its own that goes on where a killed one stopped."""
    prompts, draws = (out.with_name(f"{out.name}.{name}.jsonl") for name in ("prompts", "draws"))
    messages = [
        {
            "sample_id": one.id,
            "messages": [
                {"role": "system", "content": prompt or system_prompt(language_of(one.query))},
                {"role": "user", "content": one.query},
            ],
        }
        for one in wanted
    ]
    write_atomically(prompts, (json.dumps(line, ensure_ascii=False) for line in messages))
    command = [sys.executable, "-m", "evaluation.draw_rewrites", "--model", str(model), "--prompts", str(prompts)]
    command += ["--out", str(draws), "--draws", "1", "--temperature", str(TEMPERATURE)]
    done = subprocess.run(
        [*command, "--max-new-tokens", str(MAX_NEW_TOKENS)], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise BadInput(f"--model: {(told or lines or [f'ended with {done.returncode}'])[-1]}")
    drawn = [line for _, line in read_jsonl(draws)]
    if [line["sample_id"] for line in drawn] != [one.id for one in wanted]:
        draws.unlink()
        raise BadInput(f"{draws}: holds draws of other queries, of a run that was killed; run the same command again")
    answers: list[str | ServiceFailure] = []
    for line in drawn:
        parsed = parse_answer(line["rewrites"][0])
        answers.append(parsed if isinstance(parsed, ServiceFailure) else str(parsed["expansion"]))
    for leftover in (prompts, draws):
        leftover.unlink()
    return answers


def _write(
    options: GenerateOptions, wanted: Sequence[Asked], answers: Sequence[str | ServiceFailure], generator: str
) -> None:
    quarantined: list[Mapping[str, Any]] = []
    written = 0
    with writing_lines(options.out) as write:
        for one, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, ServiceFailure):
                quarantined.append({"id": one.id, "query": one.query, "reason": answer.reason, "kind": answer.kind})
                continue
            example = Example.model_validate(
                {"id": one.id, "query": one.query, "expansion": answer, "category": one.category or None}
            )
            total = score(one.query, example.expansion).total
            if total < options.least_score:
                reason = f"score {total:.2f} is below {options.least_score:g}"
                quarantined.append({"id": one.id, "query": one.query, "reason": reason, "expansion": answer})
                continue
            scored = example.model_copy(update={"generator": generator, "score": round(total, 4)})
            write(scored.to_json())
            written += 1
        if not written:
            raise BadInput(f"no query has an expansion; the first: {quarantined[0]['reason']}")
    quarantine = options.out.with_name(options.out.name + ".quarantine.jsonl")
    write_atomically(quarantine, (json.dumps(line, ensure_ascii=False) for line in quarantined))
    print(f"{options.out}: queries {len(wanted)} = examples {written} + without {len(quarantined)} ({quarantine})")
    for reason, count in Counter(line["reason"] for line in quarantined).most_common(_PROBLEMS_SHOWN):
        print(f"  {reason}: {count}")
    if any(line.get("kind") == FailureKind.BUDGET_SPENT for line in quarantined):
        print("the budget is spent: run the same command with a larger one")
    elif options.expander and any("kind" in line for line in quarantined):
        print("run the same command again: it asks for the missing ones only")


def read_prompt(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    text = "\n".join(open_text(path, BadInput).lines()).strip() if path.stat().st_size else ""
    if not text:
        raise BadInput(f"{path}: empty")
    return text


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.generate_expansions",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--queries", type=Path, required=True, metavar="FILE", help="queries (.txt, .jsonl or .yaml)")
    add("--out", type=Path, required=True, metavar="FILE", help="examples (.jsonl)")
    add("--expander", metavar="PROFILE", help="a name in recipes/config/expander, or a YAML file")
    add("--model", type=Path, metavar="FOLDER", help="a model on this machine, in the place of --expander")
    add("--prompt", type=Path, metavar="FILE", help="system message (default: that of each query's language)")
    add("--ledger", type=Path, metavar="FILE", help="default: <out>.ledger.sqlite")
    add("--max-cny", type=float, metavar="YUAN", help="what this command may spend, earlier runs included")
    add("--max-calls", type=int, metavar="N", help="calls that this command may make, earlier runs included")
    add("--least-score", type=float, default=0.0, metavar="S", help="least score by rules of an example (default 0)")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    options = GenerateOptions(**vars(_parse(argv)))
    return run_until_stopped(lambda: generate(options), "the answers so far are kept")


if __name__ == "__main__":
    raise SystemExit(main())
