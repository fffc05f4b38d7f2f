"""The SQL that takes a log line apart: parsed once, by DuckDB, into exactly the paths that are wanted.

It decides only what is certain. A line that it cannot read, or that holds something which does not fit, is handed back
whole, for `read_logs` to look at it alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_prep.readers.log_paths import LogPath, LogPaths, json_path, placed, same_key
from data_prep.rows.columns import SCORES, TEXTS
from data_prep.rows.dialogue import SPEAKERS
from data_prep.rows.missing import BRACKETS, CHINESE, SPELLINGS
from data_prep.rows.sql import literal
from plain_text.thinking import TAGS

_TEXT = "VARCHAR"
_HITS = [{"content": _TEXT, "score": "DOUBLE", "reranker_score": "DOUBLE", "doc_id": _TEXT}]
_TURNS = [{"role": _TEXT, "content": _TEXT}]
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-](0\d|1[0-4]):[0-5]\d)?"
_VISIBLE = r"[^\s\p{Z}\p{Cc}\p{Cf}]"
_SPACES = r"[\s\x{b}\x{1c}-\x{1f}\x{85}\p{Z}]+"  # what Python's str.split takes for white space
# A short text that may be missing, or that a number or a truth value left: of ASCII, lower case; of other characters.
_SPELLINGS = "|".join(re.escape(text) for text in sorted(SPELLINGS) if text.isascii())
_ODD = rf"\s*(?:{_SPELLINGS}|true|false|[-+]?[0-9.]+(?:e[-+]?[0-9]+)?)?\s*|.*[\x01-\x1f\x7f].*"
_BRACKETS = f"[{re.escape(BRACKETS)}]*"
_ODD_WIDE = (
    r"[\x{1}-\x{7f}\p{Z}\p{C}\x{2010}-\x{2015}\x{2212}\x{ff01}-\x{ff5e}]*"
    rf"|{_BRACKETS}(?:{'|'.join(sorted(CHINESE))}){_BRACKETS}"
)
_LONGEST_ODD = 32
_WHOLE_NUMBER = r"0|-?[1-9]\d{0,17}"
_NO_SCORE = r'score"\s*:\s*[^-0-9n\s]'  # what DuckDB cannot read as a number is null to it
_SOMETHING = r'"\s*:\s*(?:[^n"\s]|"[^"])'  # a value that is neither null nor an empty text


class LogQuery:
    """`sql` reads `log_lines.SCHEMA` from a table `lines` and gives, per line: row, line (NULL unless it is to be
    looked at), written (a timestamp to be read yet), source, and the columns of `columns.ROWS` from the
    first text to success."""

    def __init__(self, paths: LogPaths, sample: Mapping[str, object]):
        """Write the query. `sample` is a line of the file: the query is faster where most lines hold their hits where
        it does."""
        self._paths, self._sample = paths, sample
        of_hits = [bool(path.find(sample)) for path in paths.of_column["recall_results"]]
        self._usual = of_hits.index(True) if any(of_hits) else 0
        self._tree: dict[str, object] = {"source": _TEXT}
        self._apart: list[LogPath] = []
        self._places = {
            name: [self._place(path, _HITS if name == "recall_results" else _TEXT) for path in of_column]
            for name, of_column in paths.of_column.items()
        }
        # Headings that most lines hold beside nested parts are read with those.
        self._beside: dict[str, list[str]] = {name: [] for name in paths.flat_names}
        for name, keys in paths.flat_names.items():
            for key in keys:
                if key in sample:
                    place = self._place(LogPath(key, (key,)), _HITS if name == "recall_results" else _TEXT)
                    self._beside[name].append(place)
        self._usual_keys = [key for key in sample if same_key(key) not in self._meanings()]
        self._in_sample = set(sample)
        self._flat: dict[str, object] = {}
        for name, keys in paths.flat_names.items():
            for key in keys:
                self._flat[key] = _HITS if name == "recall_results" else _TEXT
        self.sql = self._sql()

    def _place(self, path: LogPath, kind: object) -> str:
        if placed(self._tree, path, kind):
            return "s." + ".".join(_identifier(str(step)) for step in path.steps)
        if path not in self._apart:
            self._apart.append(path)
        text = f"x[{self._apart.index(path) + 1}]"
        return text if kind == _TEXT else _parsed(text, kind)

    def _meanings(self) -> set[str]:
        """Return what counts (`same_key`) of every key that is looked for in a line itself."""
        headings = (key for keys in self._paths.flat_names.values() for key in keys)
        return {same_key(key) for key in (*self._paths.wanted_in(()), *headings)}

    def _sql(self) -> str:
        # Paths that fit into no one JSON structure are taken out of the line by themselves.
        apart = "NULL::VARCHAR[]"
        if self._apart:
            wanted = ", ".join(literal(json_path(path.steps)) for path in self._apart)
            apart = f"CASE WHEN s IS NOT NULL THEN json_extract_string(line, [{wanted}]) END"
        # A line is a log's when it is nested, or when its query is at a path of the tenant's own.
        nested = " OR ".join(f"s.{_identifier(root)} IS NOT NULL" for root in self._paths.roots if root in self._tree)
        texts = ", ".join(f"{self._first(name)} AS {name}" for name in self._places if name != "recall_results")
        own = [
            f"{place} <> ''"
            for place, path in zip(self._places["original_query"], self._paths.of_column["original_query"], strict=True)
            if path.own
        ]
        of_log = " OR ".join(["nested", *own])
        objects = ", ".join(literal(json_path(place)) for place in self._paths.objects)
        known = ", ".join(name for name in TEXTS if name not in ("recall_results", "timestamp", "history_context"))
        return f"""
WITH parsed AS (SELECT row, line, {_parsed("line", self._tree)} AS s FROM lines),
shaped AS (SELECT *, coalesce({nested}, false) AS nested, {apart} AS x,
    CASE WHEN s IS NOT NULL THEN json_keys(line, [{objects}]) END AS keys FROM parsed),
widened AS (SELECT *, CASE WHEN s IS NOT NULL AND NOT nested THEN {_parsed("line", self._flat)} END AS f FROM shaped),
found AS (
    SELECT row, line, s IS NULL AS broken, {self._odd_keys()} AS odd_keys, {self._listed()} AS listed, {texts},
        {self._hits()} AS hits,
        CASE WHEN s.source IN ('production_log', 'test_set') THEN s.source
            WHEN {of_log} THEN 'production_log' ELSE 'test_set' END AS source
    FROM widened),
told AS (
    SELECT *, CASE WHEN left(history_context, 1) IN ('[', '{{') THEN {_parsed("history_context", _TURNS)} END AS turns
    FROM found),
typed AS (
    SELECT row, line, broken OR odd_keys AS broken, source, hits, listed, {known},
        timestamp AS written, {_time("timestamp")} AS timestamp,
        {_dialogue()} AS history_context,
        coalesce(to_json(hits)::VARCHAR, '') AS recall_results,
        {", ".join(_number(name) for name in SCORES)},
        CASE WHEN recall_count = '' THEN len(hits)
            WHEN regexp_full_match(recall_count, '\\d{{1,9}}') THEN recall_count::BIGINT END AS recall_count,
        recall_count <> '' AS counted,
        {" OR ".join(_is_odd(name) for name in ("timestamp", *SCORES, "recall_count", "success"))} AS written_odd,
        CASE WHEN success IN ('true', '1') THEN true WHEN success IN ('false', '0') THEN false END AS success,
        (success <> '' AND success NOT IN ('true', 'false', '1', '0')) OR slices NOT IN ('', '[]') AS other
    FROM told)
SELECT row, CASE WHEN {self._doubts()} THEN line END AS line,
    CASE WHEN timestamp IS NULL THEN written END AS written, source, {", ".join(TEXTS)},
    coalesce(top1_score, {_relevance(1)}) AS top1_score,
    coalesce(avg_top3_score, CASE WHEN {_relevance(1)} IS NULL THEN NULL ELSE
        ({_relevance(1)} + coalesce({_relevance(2)}, 0) + coalesce({_relevance(3)}, 0)) / least(len(hits), 3)
        END) AS avg_top3_score,
    quality_score, recall_count, success
FROM typed"""

    def _first(self, name: str) -> str:
        """Return the first text that is not empty. `f` is NULL for every line of a log, which spares asking it for
        names."""
        found = " ".join(f"WHEN {place} NOT IN ('', '[]', '{{}}') THEN {place}" for place in self._places[name])
        flat_places = [f"f.{_identifier(key)}" for key in self._paths.flat_names[name]]
        flat = " ".join(f"WHEN {place} NOT IN ('', '[]', '{{}}') THEN {place}" for place in flat_places)
        beside = " ".join(f"WHEN {place} NOT IN ('', '[]', '{{}}') THEN {place}" for place in self._beside[name])
        none = f"CASE {beside} ELSE '' END" if beside else "''"
        return f"CASE {found} WHEN f IS NULL THEN {none} {flat} ELSE '' END"

    def _hits(self) -> str:
        """Return the first list that is not empty, else any. A CASE that comes out alike for all is a reference, else a
        copy of all hits: so it asks for exceptions from the usual place."""
        beside = [f"CASE WHEN nested THEN {place} END" for place in self._beside["recall_results"]]
        places = [*self._places["recall_results"], *beside] + [
            f"f.{_identifier(k)}" for k in self._paths.flat_names["recall_results"]
        ]
        usual = places[self._usual]
        before = [f"WHEN len({place}) > 0 THEN {place}" for place in places[: self._usual]]
        after = [
            f"WHEN len({place}) > 0 AND coalesce(len({usual}), 0) = 0 THEN {place}"
            for place in places[self._usual + 1 :]
        ]
        return f"CASE {' '.join([*before, *after])} ELSE {usual} END"

    def _listed(self) -> str:
        """Return whether any place holds a list of hits: the usual one may be empty of it."""
        flat = [f"f.{_identifier(key)}" for key in self._paths.flat_names["recall_results"]]
        return " OR ".join(f"{place} IS NOT NULL" for place in [*self._places["recall_results"], *flat])

    def _doubts(self) -> str:
        """Return what makes a line one to look at: it may be refused for it, or turn out well."""
        free = [name for name in TEXTS if name not in ("recall_results", "timestamp")]
        return f"""CASE WHEN broken THEN true
        WHEN NOT regexp_matches(original_query, {literal(_VISIBLE)}) THEN true
        WHEN {" OR ".join(_is_odd(name) for name in free)} THEN true
        WHEN {" OR ".join(f"left({name}, 1) IN ('{{', '[')" for name in free if name != "history_context")} THEN true
        WHEN written_odd THEN true
        WHEN history_context IS NULL OR other THEN true
        WHEN counted AND recall_count IS NULL THEN true
        WHEN {" OR ".join(f"NOT isfinite({name})" for name in SCORES)} THEN true
        WHEN hits IS NULL THEN listed OR {self._mentions("recall_results")}
        WHEN {_any_hit(_BAD_HIT)} THEN true
        WHEN {_any_hit(_UNSCORED_HIT)} THEN regexp_matches(line, {literal(_NO_SCORE)})
        ELSE false
        END"""

    def _mentions(self, column: str) -> str:
        names = self._paths.keys(column)
        escaped = [json.dumps(key)[1:-1] for key in names if not key.isascii()]  # a key as \\u escapes
        keys = "|".join([*map(re.escape, names), *(f"(?i:{re.escape(key)})" for key in escaped)])
        return f"regexp_matches(line, {literal(f'(?:{keys}){_SOMETHING}')})"

    def _odd_keys(self) -> str:
        """Return what tells a line whose keys need a look: one is spelled otherwise than usual, an object or the hits
        are packed into a text, or a heading is beside nested parts that are read without it."""
        headings = {key for keys in self._paths.flat_names.values() for key in keys}
        conditions = []
        for number, place in enumerate(self._paths.objects, start=1):
            here, wanted = f"keys[{number}]", self._paths.wanted_in(place)
            meanings = {same_key(key) for key in wanted} | (self._meanings() if not place else set())
            usual = [*wanted, *(self._usual_keys + sorted(headings & self._in_sample) if not place else [])]
            spelled = [*wanted, *(sorted(headings) if not place else [])]
            known = (
                f"CASE WHEN nested THEN {_list(usual)} ELSE {_list(usual + spelled)} END" if not place else _list(usual)
            )
            unusual = f"len(list_filter({here}, lambda k: NOT list_contains({known}, k) AND {_means(meanings)})) > 0"
            conditions.append(f"WHEN {_both(f'NOT list_has_all({_list(usual)}, {here})', unusual)} THEN true")
            if place and isinstance(place[-1], str):
                packed = re.escape(place[-1]) + r'"\s*:\s*"'
                in_text = f"regexp_matches(line, {literal(packed)})"
                conditions.append(f"WHEN {_both(f'len({here}) = 0', in_text)} THEN true")
        unlike = [*conditions]
        conditions = []
        for path, where in zip(self._paths.of_column["recall_results"], self._places["recall_results"], strict=False):
            if path.steps[:-1] in self._paths.objects:
                here = f"keys[{self._paths.objects.index(path.steps[:-1]) + 1}]"
                unread = re.escape(path.key) + r'"\s*:\s*[^\[n\s]'
                has = _both(f"{where} IS NULL", f"list_contains({here}, {literal(path.key)})")
                conditions.append(f"WHEN {_both(has, f'regexp_matches(line, {literal(unread)})')} THEN true")
        if (usual_keys := self._keys_of_sample()) is not None:
            odd = f"CASE {' '.join(unlike)} ELSE false END"
            unlike = [f"WHEN {_both(f'keys IS DISTINCT FROM {usual_keys}', odd)} THEN true"]
        return f"CASE WHEN s IS NULL THEN true {' '.join([*unlike, *conditions])} ELSE false END"

    def _keys_of_sample(self) -> str | None:
        """Write as SQL what `keys` is for the sample: a line of the same keys needs no look. None where the sample
        itself needs one."""
        lists = []
        for place in self._paths.objects:
            node: Any = self._sample
            for step in place:
                inside = isinstance(node, dict) if isinstance(step, str) else isinstance(node, list)
                known = inside and (step in node if isinstance(step, str) else step < len(node))
                node = node[step] if known else None
            if node is None:
                lists.append("NULL")
                continue
            if not isinstance(node, dict) or not node:
                return None
            usual = set(self._paths.wanted_in(place))
            meanings = {same_key(key) for key in usual} | (set() if place else self._meanings())
            if not place:
                usual.update(key for keys in self._paths.flat_names.values() for key in keys)
            if any(key not in usual and same_key(key) in meanings for key in node):
                return None
            lists.append("[" + ", ".join(map(literal, node)) + "]")
        return "[" + ", ".join(lists) + "]"


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(literal, dict.fromkeys(texts))) + "]::VARCHAR[]"


def _means(meanings: Iterable[str]) -> str:
    """Write SQL that says whether a key `k` may be one of `meanings` (`same_key`), however spelled."""
    plain = r"regexp_replace(lower(nfc_normalize(k)), '[\s\p{Z}\p{C}*_:-]', '', 'g')"
    wide = r"regexp_matches(k, '[\x{ff01}-\x{ff5e}\x{2e80}-\x{2fdf}\x{f900}-\x{faff}]')"
    return f"(list_contains({_list(meanings)}, {plain}) OR {wide})"


def _is_odd(name: str) -> str:
    """Write SQL that says whether a text may be missing, or was a number or a truth value."""
    number = f"regexp_full_match({name}, {literal(_WHOLE_NUMBER)})"
    plain = f"CASE WHEN regexp_full_match(lower({name}), {literal(_ODD)}, 's') THEN NOT {number} ELSE false END"
    return f"""CASE WHEN {name} = '' THEN false
        WHEN length({name}) > {_LONGEST_ODD} THEN NOT regexp_matches({name}, {literal(_VISIBLE)})
        WHEN strlen({name}) = length({name}) THEN {plain}
        ELSE regexp_full_match({name}, {literal(_ODD_WIDE)}, 's') END"""


def _both(first: str, second: str) -> str:
    """Write SQL of AND that looks at the second for no row where the first is false."""
    return f"CASE WHEN {first} THEN {second} ELSE false END"


_UNSCORED_HIT = "hit.score IS NULL OR hit.reranker_score IS NULL"
_BAD_HIT = "hit.content IS NULL OR NOT isfinite(coalesce(hit.score, 0) + coalesce(hit.reranker_score, 0))"


def _parsed(text: str, tree: object) -> str:
    """Write SQL that parses JSON, NULL for what is none. (`try` goes through thousands one by one for a single bad one;
    CASE around all of it copies all of it.)"""
    proper = f"CASE WHEN json_valid({text}) THEN {text} END"
    return f"from_json({proper}, {literal(json.dumps(tree, ensure_ascii=False))})"


def _any_hit(condition: str) -> str:
    return f"len(list_filter(hits, lambda hit: {condition})) > 0"


def _relevance(place: int) -> str:
    """Write SQL of `reward.records.sample.Hit.relevance`, NULL for no hit or no score."""
    return f"coalesce(hits[{place}].reranker_score, hits[{place}].score)"


def _number(name: str) -> str:
    """Write SQL that reads a number, NaN for what is none."""
    return f"CASE WHEN {name} <> '' THEN coalesce(try_cast({name} AS DOUBLE), 'nan'::DOUBLE) END AS {name}"


def _time(name: str) -> str:
    """Write SQL that reads a moment as `timestamps.read_timestamps` does; NULL where that has to decide."""
    return f"""CASE WHEN {name} = '' THEN ''
        WHEN regexp_full_match({name}, '{_ISO}') AND try_cast({name} AS TIMESTAMP) IS NOT NULL
        THEN replace(replace({name}, ' ', 'T'), 'Z', '+00:00') END"""


def _dialogue() -> str:
    """Write SQL that turns a list of {role, content} into lines; NULL where `dialogue.read_dialogue` has to decide."""
    speaker = " ".join(f"WHEN {literal(role)} THEN {literal(label + ': ')}" for role, label in SPEAKERS.items())
    spaced = f"trim(regexp_replace(turn.content, {literal(_SPACES)}, ' ', 'g'))"
    said = f"CASE WHEN regexp_matches(turn.content, {literal(_SPACES)}) THEN {spaced} ELSE turn.content END"
    line = f"CASE lower(turn.role) {speaker} END || {said}"
    may_think = " OR ".join(f"contains(turn.content, '{mark}')" for mark in ("<", "＜", "&lt;", "◁", "["))
    thinks = _both(f"({may_think})", f"regexp_matches(turn.content, {literal(TAGS)})")
    clear = f"""turn.role IS NOT NULL AND turn.content IS NOT NULL AND turn.content <> ''
        AND list_contains({_list(SPEAKERS)}, lower(turn.role)) AND left(turn.content, 1) NOT IN ('[', '{{')
        AND NOT {_is_odd("turn.content")} AND NOT {thinks}"""
    return f"""CASE WHEN history_context = '[]' THEN ''
        WHEN NOT regexp_matches(history_context, '^[\\s\\x{{feff}}]*["(\\[{{]') THEN history_context
        WHEN len(list_filter(turns, lambda turn: NOT coalesce({clear}, false))) > 0 THEN NULL
        ELSE array_to_string(list_transform(turns, lambda turn: {line}), chr(10)) END"""


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
