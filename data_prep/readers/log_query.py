"""The SQL that takes a log line apart: parsed once, by DuckDB, into exactly the paths that are wanted.

It decides only what is certain. A line that it cannot read, or that holds something which does not fit, is handed back
whole, for `read_logs` to look at it alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from data_prep.readers.log_paths import LogPath, LogPaths, json_path, placed
from data_prep.rows.columns import SCORES, TEXTS
from data_prep.rows.sql import literal

_TEXT = "VARCHAR"
_HITS = [{"content": _TEXT, "score": "DOUBLE", "reranker_score": "DOUBLE", "doc_id": _TEXT}]
_TURNS = [{"role": _TEXT, "content": _TEXT}]
# Who speaks, lower case. Others (system, tool) are no dialogue.
SPEAKERS = {
    **dict.fromkeys(("user", "human", "customer", "用户", "客户"), "用户"),
    **dict.fromkeys(("assistant", "ai", "bot", "agent", "助手", "客服"), "助手"),
}
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-](0\d|1[0-4]):[0-5]\d)?"
_VISIBLE = r"[^\s\p{Z}\p{Cc}\p{Cf}]"
_NO_SCORE = r'score"\s*:\s*[^-0-9n\s]'  # what DuckDB cannot read as a number is null to it
# A value that is neither null nor an empty text, perhaps inside JSON that is packed into a text.
_SOMETHING = r'\\?"\s*:\s*(?:[^n"\\\s]|\\?"[^"\\])'


class LogQuery:
    """`sql` reads `log_lines.SCHEMA` from a table `lines` and gives, per line: row, line (NULL unless it is to be
    looked at), written (a timestamp to be read yet), source, and the columns of `columns.ROWS` from the
    first text to success."""

    def __init__(self, paths: LogPaths, sample: Mapping[str, object]):
        """Write the query. `sample` is a line of the file: the query is faster where most lines hold their hits where
        it does."""
        self._paths = paths
        of_hits = [bool(path.find(sample)) for path in paths.of_column["recall_results"]]
        self._usual = of_hits.index(True) if any(of_hits) else 0
        self._tree: dict[str, object] = {"source": _TEXT}
        self._apart: list[LogPath] = []
        self._places = {
            name: [self._place(path, _HITS if name == "recall_results" else _TEXT) for path in of_column]
            for name, of_column in paths.of_column.items()
        }
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

    def _sql(self) -> str:
        # Paths that fit into no one JSON structure are taken out of the line by themselves.
        apart = "NULL::VARCHAR[]"
        if self._apart:
            wanted = ", ".join(literal(json_path(path)) for path in self._apart)
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
        known = ", ".join(name for name in TEXTS if name not in ("recall_results", "timestamp", "history_context"))
        return f"""
WITH parsed AS (SELECT row, line, {_parsed("line", self._tree)} AS s FROM lines),
shaped AS (SELECT *, coalesce({nested}, false) AS nested, {apart} AS x FROM parsed),
widened AS (SELECT *, CASE WHEN s IS NOT NULL AND NOT nested THEN {_parsed("line", self._flat)} END AS f FROM shaped),
found AS (
    SELECT row, line, s IS NULL AS broken, {texts}, {self._hits()} AS hits,
        CASE WHEN s.source IN ('production_log', 'test_set') THEN s.source
            WHEN {of_log} THEN 'production_log' ELSE 'test_set' END AS source
    FROM widened),
told AS (
    SELECT *, CASE WHEN left(history_context, 1) IN ('[', '{{') THEN {_parsed("history_context", _TURNS)} END AS turns
    FROM found),
typed AS (
    SELECT row, line, broken, source, hits, {known},
        timestamp AS written, {_time("timestamp")} AS timestamp,
        {_dialogue()} AS history_context,
        coalesce(to_json(hits)::VARCHAR, '') AS recall_results,
        {", ".join(_number(name) for name in SCORES)},
        CASE WHEN recall_count = '' THEN len(hits)
            WHEN regexp_full_match(recall_count, '\\d{{1,9}}') THEN recall_count::BIGINT END AS recall_count,
        recall_count <> '' AS counted,
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
        found = " ".join(f"WHEN {place} <> '' THEN {place}" for place in self._places[name])
        flat = " ".join(f"WHEN f.{_identifier(k)} <> '' THEN f.{_identifier(k)}" for k in self._paths.flat_names[name])
        return f"CASE {found} WHEN f IS NULL THEN '' {flat} ELSE '' END"

    def _hits(self) -> str:
        """Return the first list that is not empty, else any. A CASE that comes out alike for all is a reference, else a
        copy of all hits: so it asks for exceptions from the usual place."""
        places = self._places["recall_results"] + [
            f"f.{_identifier(k)}" for k in self._paths.flat_names["recall_results"]
        ]
        usual = places[self._usual]
        before = [f"WHEN len({place}) > 0 THEN {place}" for place in places[: self._usual]]
        after = [
            f"WHEN len({place}) > 0 AND coalesce(len({usual}), 0) = 0 THEN {place}"
            for place in places[self._usual + 1 :]
        ]
        return f"CASE {' '.join([*before, *after])} ELSE {usual} END"

    def _doubts(self) -> str:
        """Return what makes a line one to look at: it may be refused for it, or turn out well."""
        return f"""CASE WHEN broken THEN true
        WHEN NOT regexp_matches(original_query, {literal(_VISIBLE)}) THEN true
        WHEN left(original_query, 1) IN ('{{', '[') OR left(rewritten_query, 1) IN ('{{', '[') THEN true
        WHEN history_context IS NULL OR other THEN true
        WHEN counted AND recall_count IS NULL THEN true
        WHEN {" OR ".join(f"NOT isfinite({name})" for name in SCORES)} THEN true
        WHEN rewritten_query = '' AND {self._mentions("rewritten_query")} THEN true
        WHEN hits IS NULL THEN {self._mentions("recall_results")}
        WHEN {_any_hit(_BAD_HIT)} THEN true
        WHEN {_any_hit(_UNSCORED_HIT)} THEN regexp_matches(line, {literal(_NO_SCORE)})
        ELSE false
        END"""

    def _mentions(self, column: str) -> str:
        keys = "|".join(re.escape(key) for key in self._paths.keys(column))
        return f"regexp_matches(line, {literal(f'(?:{keys}){_SOMETHING}')})"


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
    """Write SQL that turns a list of {role, content} into lines; NULL for another list."""
    speaker = " ".join(f"WHEN {literal(role)} THEN {literal(label + ': ')}" for role, label in SPEAKERS.items())
    spaced = r"trim(regexp_replace(turn.content, '\s+', ' ', 'g'))"
    said = f"CASE WHEN regexp_matches(turn.content, '\\s') THEN {spaced} ELSE turn.content END"
    line = f"CASE lower(turn.role) {speaker} END || {said}"
    return f"""CASE WHEN history_context = '[]' THEN ''
        WHEN left(history_context, 1) NOT IN ('[', '{{') THEN history_context
        WHEN len(list_filter(turns, lambda turn: turn.role IS NULL OR turn.content IS NULL)) > 0 THEN NULL
        ELSE array_to_string(list_transform(turns, lambda turn: {line}), chr(10)) END"""


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
