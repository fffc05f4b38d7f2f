"""The lexicons of the rules: YAML files with a version and sources, checked and compiled once.

Patterns are regular expressions over folded text (`reward.text.fold`); Chinese commas, semicolons and colons in them
are read as the folded ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from reward.records.files import BadInput, first_problem
from reward.settings.data import StrictSettings

FOLDER = Path(__file__).parent / "wordlists"
_PUNCTUATION = str.maketrans("，；：％", ",;:%")
_TERM = re.compile(r"<([一-鿿]+)>")


class Source(StrictSettings):
    """What every lexicon says of itself."""

    version: str
    sources: tuple[str, ...] = Field(min_length=1)


class Sign(StrictSettings):
    """One emergency sign: every pattern of `all`, or one of `any`."""

    name: str
    level: Literal["emergency", "unclear"]
    kind: Literal["symptom", "condition", "crisis"]
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_patterns(self) -> Sign:
        if bool(self.all) == bool(self.any):
            raise ValueError(f"sign {self.name}: needs patterns under `all` or under `any`, not both")
        return self


class SignsFile(Source):
    terms: dict[str, str]
    signs: tuple[Sign, ...]
    serious: str
    vulnerable: str
    exposure: str
    concern: tuple[str, ...]


class ContextFile(Source):
    past_time: str
    past: str
    acute: str
    now: str
    caused: str
    topic: str
    imagined: str
    chronic: str
    symptoms: str
    mild: str
    benign: str
    cared: str


class CareFile(Source):
    numbers: str
    emergency_places: str
    care_places: str
    at_once: str
    soon: str
    call: str
    later: str
    conditional: str
    met: str
    discouraged: str
    wait: str
    long_wait: str
    harmless: str
    alarm_words: str
    hotline: str
    professional: str
    company: str
    safety: str
    secrecy: str
    net: str


class DoseLimit(StrictSettings):
    drug: str
    grams: float = Field(gt=0)


class Contraindication(StrictSettings):
    group: str
    drug: str


class DrugsFile(Source):
    prescription: tuple[str, ...]
    over_the_counter: tuple[str, ...]
    supplement: tuple[str, ...]
    single_dose_limits: tuple[DoseLimit, ...]
    contraindicated: tuple[Contraindication, ...]


class HarmfulWhen(StrictSettings):
    """`act` harms where the question names `group`."""

    group: str
    act: str


class RisksFile(Source):
    certainty: str
    self_adjustment: str
    harmful_acts: tuple[str, ...]
    harmful_when: tuple[HarmfulWhen, ...] = ()
    methods: str
    doctor_decides: str
    leaflet: str
    warned: str
    warned_after: str
    reported: str
    refuted: str
    own_medication: str
    informing: str
    recommend: str
    recommend_after: str


class HarmFile(Source):
    patterns: tuple[str, ...]
    english_strong: tuple[str, ...]
    english_weak: tuple[str, ...]
    english_actor: str
    english_need: str


class ChainElements(StrictSettings):
    observation: str
    reasoning: str
    severity: str
    unknowns: str
    plan: str


class FormFile(Source):
    refusal: str
    boilerplate: str
    empty: str
    declines: str
    judge_directed: str
    chain: ChainElements


_F = TypeVar("_F", bound=Source)
_FILES: dict[str, type[Source]] = {
    "emergency_signs": SignsFile,
    "question_context": ContextFile,
    "care": CareFile,
    "drugs": DrugsFile,
    "risks": RisksFile,
    "harm_requests": HarmFile,
    "answer_form": FormFile,
}


class Lexicons:
    """All lexicons of a folder; a file that it lacks is the built-in one.

    Raises:
        BadInput: a file is no YAML, has an unknown or missing key, a pattern that does not compile, or one entry twice
            (names file and entry).
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self.signs = self._load(SignsFile, "emergency_signs")
        self.context = self._load(ContextFile, "question_context")
        self.care = self._load(CareFile, "care")
        self.drugs = self._load(DrugsFile, "drugs")
        self.risks = self._load(RisksFile, "risks")
        self.harm = self._load(HarmFile, "harm_requests")
        self.form = self._load(FormFile, "answer_form")
        self._compiled: dict[str, re.Pattern[str]] = {}
        self._check()

    @property
    def versions(self) -> dict[str, str]:
        """The version of each file, by its name."""
        files = (self.signs, self.context, self.care, self.drugs, self.risks, self.harm, self.form)
        return dict(zip(_FILES, (file.version for file in files), strict=True))

    def pattern(self, text: str) -> re.Pattern[str]:
        """Compile a pattern of these lexicons, once."""
        compiled = self._compiled.get(text)
        if compiled is None:
            compiled = self._compiled[text] = re.compile(self._expanded(text))
        return compiled

    def any_of(self, patterns: Iterable[str]) -> re.Pattern[str]:
        """Compile several patterns as one."""
        return self.pattern("|".join(f"(?:{one})" for one in patterns))

    def path(self, name: str) -> Path:
        """The file of a lexicon."""
        own = self._folder / f"{name}.yaml" if self._folder else None
        return own if own is not None and own.is_file() else FOLDER / f"{name}.yaml"

    def _expanded(self, text: str) -> str:
        def term(match: re.Match[str]) -> str:
            if match[1] == "药名":
                return f"(?:{'|'.join((*self.drugs.prescription, *self.drugs.over_the_counter))})"
            return f"(?:{self._expanded(self.signs.terms[match[1]])})" if match[1] in self.signs.terms else match[0]

        return _TERM.sub(term, text.translate(_PUNCTUATION))

    def _load(self, model: type[_F], name: str) -> _F:
        path = self.path(name)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise BadInput(f"{path}: {first_problem(error)}") from None

    def _check(self) -> None:
        for name, file in zip(
            _FILES, (self.signs, self.context, self.care, self.drugs, self.risks, self.harm, self.form), strict=True
        ):
            for place, pattern in _patterns(file.model_dump(exclude={"version", "sources"}), ""):
                try:
                    self.pattern(pattern)
                except (re.error, RecursionError) as error:
                    raise BadInput(f"{self.path(name)}: {place}: no pattern: {error}") from None
        self._refuse_twice("emergency_signs", "sign", (sign.name for sign in self.signs.signs))
        patterns = (p for sign in self.signs.signs if sign.any for p in sign.any)
        self._refuse_twice("emergency_signs", "pattern", patterns)
        drugs = self.drugs
        lists = (*drugs.prescription, *drugs.over_the_counter, *drugs.supplement)
        self._refuse_twice("drugs", "drug", (name for one in lists for name in _alternatives(one)))
        pairs = (f"{one.group} / {one.drug}" for one in drugs.contraindicated)
        self._refuse_twice("drugs", "contraindication", pairs)

    def _refuse_twice(self, file: str, what: str, entries: Iterable[str]) -> None:
        seen: set[str] = set()
        for entry in entries:
            if entry in seen:
                raise BadInput(f"{self.path(file)}: {what} {entry!r} is there twice")
            seen.add(entry)


@lru_cache(maxsize=8)
def lexicons(folder: Path | None = None) -> Lexicons:
    """Return the lexicons of a folder, the built-in ones for None."""
    return Lexicons(folder)


def _patterns(value: Any, place: str) -> Iterable[tuple[str, str]]:
    """Each pattern of a file with its place; names, levels and kinds are none."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("name", "level", "kind"):
                yield from _patterns(inner, f"{place}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value, start=1):
            yield from _patterns(inner, f"{place}[{number}]")


def _alternatives(pattern: str) -> list[str]:
    """The alternatives of a pattern at its outermost level."""
    found, depth, start = [], 0, 0
    for place, character in enumerate(pattern):
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "|" and depth == 0:
            found.append(pattern[start:place])
            start = place + 1
    return [*found, pattern[start:]]
