"""What `metrics.json` and `rewrites.jsonl` hold, kind by kind: a part of another kind is named before a page is drawn.

Any part may be missing or null. Keys that nobody knows are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], str | None]  # (value, its place) -> what is wrong with it, None where nothing is


def problem_of_metrics(metrics: Mapping[str, Any]) -> str | None:
    """Name the first part of `metrics.json` that is of another kind than the page expects; None where none is."""
    return METRICS(metrics, "")


def problem_of_row(row: Mapping[str, Any]) -> str | None:
    """Name the first part of a line of `rewrites.jsonl` that is of another kind; None where none is."""
    return ROW(row, "")


def _kind(name: str, kinds: tuple[type, ...], *, not_bool: bool = False) -> Check:
    def check(value: Any, place: str) -> str | None:
        fits = isinstance(value, kinds) and not (not_bool and isinstance(value, bool))
        return None if value is None or fits else f"{place}: expected {name}, found {_shown(value)}"

    return check


NUMBER = _kind("a number", (int, float), not_bool=True)
TEXT = _kind("a text", (str,))
FLAG = _kind("true or false", (bool,))
SCALAR = _kind("a text or a number", (str, int, float))
ANYTHING: Check = lambda value, place: None  # noqa: E731


def _interval(value: Any, place: str) -> str | None:
    whole = isinstance(value, list) and len(value) == 2 and all(_is_number(end) for end in value)
    return None if value is None or whole else f"{place}: expected two numbers, found {_shown(value)}"


def _each(check: Check) -> Check:
    """An object of any keys, every value of which is of one kind."""
    return _object({}, check)


def _object(fields: Mapping[str, Check], others: Check = ANYTHING) -> Check:
    def check(value: Any, place: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            return f"{place}: expected an object, found {_shown(value)}"
        found = (fields.get(name, others)(one, f"{place}.{name}".removeprefix(".")) for name, one in value.items())
        return next(filter(None, found), None)

    return check


def _list(item: Check) -> Check:
    def check(value: Any, place: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, list):
            return f"{place}: expected a list, found {_shown(value)}"
        return next(filter(None, (item(one, f"{place}.{n}") for n, one in enumerate(value))), None)

    return check


def _text_or_each_text(value: Any, place: str) -> str | None:
    return None if isinstance(value, str) else _each(TEXT)(value, place)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


SUMMARY = _object({"ci95": _each(_interval)}, NUMBER)
DIFFERENCE = _object({"ci95": _interval}, NUMBER)
PAIR = _object({"ci95": _interval, "kappa_ci95": _interval, "difference": DIFFERENCE, "corrected": DIFFERENCE}, NUMBER)
NUMBERS = _each(NUMBER)
METRICS = _object(
    {
        "systems": _each(SUMMARY),
        "slices": _each(_each(SUMMARY)),
        "win_rate": _each(PAIR),
        "slice_win_rate": _each(_each(PAIR)),
        "held_out_slices": _each(_object({"win_rate": _each(PAIR)}, NUMBER)),
        "harmed": _each(_object({"ci95": _interval, "sample_ids": _list(TEXT)}, NUMBER)),
        "pass_through": _each(_object({"ci95": _interval, "rules": _each(DIFFERENCE)}, NUMBER)),
        "gated": _each(_object({"reasons": NUMBERS}, NUMBER)),
        "latency_ms": _each(NUMBERS),
        "tokens": _each(NUMBERS),
        "cost_per_1000": _each(NUMBERS),
        "reward": NUMBERS,
        "seconds": NUMBERS,
        "peak_gb": NUMBERS,
        "targets": _list(_object({"metric": TEXT, "system": TEXT, "met": FLAG}, NUMBER)),
        "judge": _object(
            {
                "profile": TEXT,
                "model": TEXT,
                "trained_with": _text_or_each_text,
                "forced": FLAG,
                "systems": _each(SUMMARY),
                "win_rate": _each(PAIR),
                "abstained": _object({"grades": NUMBERS}, NUMBER),
                "labels": _object({"kappa_ci95": _interval}, NUMBER),
            }
        ),
        "provenance": _object(
            {
                "created_at": TEXT,
                "tenant": TEXT,
                "test": _each(TEXT),
                "models": _each(_each(TEXT)),
                "recorded": _each(TEXT),
                "prompted": _each(_each(TEXT)),
                "counts": NUMBERS,
                "abstained_because": NUMBERS,
                "judged_by": TEXT,
                "scorer": TEXT,
                "llm_judge": _each(FLAG),
                "retrieval": _each(SCALAR),
                "retriever": _object(
                    {
                        "fingerprint": TEXT,
                        "index": _each(SCALAR),
                        "training": _each(_object({"changed": _list(TEXT), "kb_version": TEXT, "asked": FLAG})),
                    }
                ),
                "max_new_tokens": NUMBERS,
                "cut": NUMBERS,
                "measured_as": _each(TEXT),
                "missing": _list(TEXT),
                "seed": NUMBER,
                "versions": _each(TEXT),
            }
        ),
    }
)
ROW = _object(
    {
        "sample_id": TEXT,
        "query": TEXT,
        "context": TEXT,
        "slices": _list(TEXT),
        "abstained": TEXT,
        "systems": _each(_object({"rewrite": TEXT, "rank": NUMBER, "top1": NUMBER, "gate": TEXT})),
        "judge": _object({"overall": NUMBERS, "preferred": NUMBERS}),
    }
)
