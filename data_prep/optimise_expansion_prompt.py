"""Improve the prompt that examples of query expansion are generated with, by GEPA (Agrawal et al. 2025).

    pip install 'sales-rag-rewriter[gepa]'
    python -m data_prep.optimise_expansion_prompt --queries queries.txt --language en --expander deepseek_v3 \\
        --max-cny 20 --out prompt.txt
    python -m data_prep.generate_expansions --prompt prompt.txt ...

A reflecting model reads what the rules took from the expansions of some queries and writes another prompt. A prompt
that scores higher stays. The rules are those of training.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from data_prep.baseline.asking import probe, run_until_stopped
from data_prep.expansions.teacher import CNY_PER_USD, Teacher, TeacherSettings, load_teacher, system_prompt
from data_prep.generate_expansions import queries_to_send, read_prompt
from data_prep.questions.split import Shares, assign_split
from reward.expansion.language import language_of
from reward.expansion.parser import parse
from reward.expansion.rules import score
from reward.judge.protocol import Parsed, Question
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import FailureKind, ServiceFailure
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically, write_json
from reward.settings.recipe import BudgetLimits, Language, LedgerSettings

RUN_ID = "optimise_expansion_prompt"
COMPONENT = "system_prompt"
SHARES: Shares = (("val", 0.4), ("train", 0.6))  # of the queries: to choose prompts by, to learn from
REFLECTION_TOKENS = 2000
_LOG = logging.getLogger(__name__)
_REFLECTING = "You improve the instructions of language models."

_MANUAL = """\
what is asked
  Every candidate prompt is tried on a few queries, a promising one on all held-out queries (40 %): --max-expansions
  bounds how many expansions that takes. The reflecting model (--reflector, by default the expander) is asked once a
  candidate.

what is written
  <out>                the best prompt
  <out>.json           its score and the first prompt's on the held-out queries, and those of every candidate
  <out>.ledger.sqlite  every call, its answer and its cost: the same command asks nothing twice

exit codes
  0 written; 2 bad input, a service that does not answer, or a spent budget: one line says which
"""


@dataclass(frozen=True, kw_only=True)
class OptimiseOptions:
    """What to improve, and which models do it.

    Args:
        language: whose queries count and whose prompt is improved.
        prompt: file of the first prompt; None: the one that ships.
        reflector: profile of the model that writes prompts; None: the expander's.
        max_expansions: expansions asked for, over all candidates.
        max_cny: what the calls may cost, earlier runs with the same ledger included.
    """

    queries: Path
    out: Path
    expander: str
    language: Language
    reflector: str | None = None
    prompt: Path | None = None
    max_expansions: int = 300
    max_cny: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tried:
    """A query, what the model wrote for it, its score in [0, 1], and what the rules say."""

    query: str
    expansion: str
    total: float
    feedback: str


class RuleAdapter:
    """Tries prompts for GEPA: the score of an expansion is that of the rules, the feedback their deductions."""

    propose_new_texts = None

    def __init__(self, expander: Teacher, reflector: Teacher, runner: asyncio.Runner, language: Language):
        self._expander, self._reflector, self._runner, self._language = expander, reflector, runner, language
        self.reflector_failure = ""

    def log(self, message: str) -> None:
        """Take what GEPA tells of its steps."""
        _LOG.debug(message)

    def has_failed(self, state: Any) -> bool:
        """Say to GEPA, which passes over a reflecting model's failures, that the search is at its end."""
        return bool(self.reflector_failure)

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Return the expansions of a batch of queries under a candidate prompt, with their scores.

        Raises:
            BadInput: the service failed, which is never a score.
        """
        from gepa import EvaluationBatch

        tried = self._runner.run(self._try_all(batch, candidate[COMPONENT]))
        return EvaluationBatch(
            outputs=[one.expansion for one in tried],
            scores=[one.total for one in tried],
            trajectories=tried if capture_traces else None,
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return what the reflecting model reads of a batch."""
        read = [
            {"Inputs": one.query, "Generated Outputs": one.expansion, "Feedback": one.feedback}
            for one in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, read)

    def reflect(self, prompt: str | list[dict[str, Any]]) -> str:
        """Ask the reflecting model.

        Raises:
            BadInput: it failed.
        """
        text = prompt if isinstance(prompt, str) else "\n\n".join(str(message["content"]) for message in prompt)
        value = self._runner.run(self._reflector.ask(Question(_REFLECTING, text, {}, _as_text))).value
        if isinstance(value, ServiceFailure):
            self.reflector_failure = value.reason
            raise BadInput(f"reflector: {value.reason}")
        return str(value["text"])

    async def _try_all(self, queries: Sequence[str], prompt: str) -> list[Tried]:
        return list(await asyncio.gather(*(self._try(query, prompt) for query in queries)))

    async def _try(self, query: str, prompt: str) -> Tried:
        value = (await self._expander.expand(query, prompt)).value
        if isinstance(value, ServiceFailure):
            # An answer that is no expansion is the prompt's fault; any other failure says nothing of the prompt.
            if value.kind is not FailureKind.MALFORMED:
                raise BadInput(f"expander: {value.reason}")
            return Tried(query, "", 0.0, f"score 0 of 1: {value.reason}")
        text = str(value["expansion"])
        rules = score(query, parse(text), language=self._language)
        taken = "\n".join(rules.deductions) or "nothing was taken from the score"
        return Tried(query, text, rules.total, f"score {rules.total:.2f} of 1\n{taken}")


def optimise(options: OptimiseOptions) -> None:
    """Search for a better prompt and write the best.

    Raises:
        BadInput: GEPA is missing, an option or a file cannot be used, a service failed, or the budget is spent.
    """
    try:
        import gepa
    except ModuleNotFoundError:
        raise BadInput("GEPA is not installed: pip install 'sales-rag-rewriter[gepa]'") from None
    for name, limit in (("--max-cny", options.max_cny), ("--max-expansions", options.max_expansions)):
        if limit is not None and not limit >= 0:
            raise BadInput(f"{name} {limit}: must be 0 or more")
    queries = [one.query for one in queries_to_send(options.queries) if language_of(one.query) == options.language]
    train, held_out = (
        [query for query in queries if assign_split(query, SHARES, options.seed) == part] for part in ("train", "val")
    )
    if not train or not held_out:
        raise BadInput(f"{options.queries}: too few queries in {options.language}: both parts need one")
    first = read_prompt(options.prompt) or system_prompt(options.language)
    settings = load_teacher(options.expander)
    reflecting = _reflecting(load_teacher(options.reflector) if options.reflector else settings)
    if options.max_cny is not None and (settings.price is None or reflecting.price is None):
        raise BadInput("--max-cny: a profile names no price; --max-expansions bounds the calls")

    probe("expander", settings.base_url)
    ledger = LedgerSettings(
        path=options.out.with_name(options.out.name + ".ledger.sqlite"),
        run_id=RUN_ID,
        run=BudgetLimits(cny=options.max_cny),
    )
    with closing(Ledger(ledger)) as opened, asyncio.Runner() as runner:
        calls = Calls(opened)
        expander, reflector = Teacher(settings, calls, CNY_PER_USD), Teacher(reflecting, calls, CNY_PER_USD)
        adapter: Any = RuleAdapter(expander, reflector, runner, options.language)
        try:
            found: Any = gepa.optimize(
                seed_candidate={COMPONENT: first},
                trainset=train,
                valset=held_out,
                adapter=adapter,
                reflection_lm=adapter.reflect,
                max_metric_calls=options.max_expansions,
                seed=options.seed,
                stop_callbacks=adapter.has_failed,
                logger=adapter,
            )
        finally:
            runner.run(expander.aclose())
            runner.run(reflector.aclose())
    if adapter.reflector_failure:
        raise BadInput(f"reflector: {adapter.reflector_failure}")
    scores = [round(float(one), 4) for one in found.val_aggregate_scores]
    write_atomically(options.out, [found.best_candidate[COMPONENT]])
    record = {
        "held_out_queries": len(held_out),
        "first": scores[0],
        "best": max(scores),
        "candidates": [
            {"score": one, COMPONENT: candidate[COMPONENT]}
            for one, candidate in zip(scores, found.candidates, strict=True)
        ],
    }
    write_json(options.out.with_name(options.out.name + ".json"), record)
    print(
        f"{options.out}: {max(scores):.3f} on {len(held_out)} held-out queries, the first prompt has {scores[0]:.3f}; "
        f"{len(scores)} candidates"
    )


def _reflecting(settings: TeacherSettings) -> TeacherSettings:
    """Give the reflecting model room for a whole prompt."""
    return settings.model_copy(update={"max_output_tokens": max(REFLECTION_TOKENS, settings.max_output_tokens)})


def _as_text(text: str) -> Parsed:
    return {"text": text}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.optimise_expansion_prompt",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--queries", type=Path, required=True, metavar="FILE", help="queries (.txt, .jsonl or .yaml)")
    add("--language", choices=get_args(Language), required=True, help="whose queries and prompt")
    add("--expander", required=True, metavar="PROFILE", help="a name in recipes/config/expander, or a YAML file")
    add("--reflector", metavar="PROFILE", help="the model that writes prompts (default: the expander)")
    add("--prompt", type=Path, metavar="FILE", help="first prompt (default: the one that ships)")
    most = OptimiseOptions.max_expansions
    add("--max-expansions", type=int, default=most, metavar="N", help=f"expansions asked for (default {most})")
    add("--max-cny", type=float, metavar="YUAN", help="what the calls may cost, earlier runs included")
    add("--out", type=Path, required=True, metavar="FILE", help="the best prompt")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    options = OptimiseOptions(**vars(_parse(argv)))
    return run_until_stopped(lambda: optimise(options), "the answers so far are in the ledger")


if __name__ == "__main__":
    raise SystemExit(main())
