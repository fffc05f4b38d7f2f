"""What both engines promise: Qdrant Edge in this process, and a Qdrant server (QDRANT_TEST_URL names a real one)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.index.edge_engine import EdgeEngine
from rag.index.engine import Engine, EngineUnavailable, Point, ScoredRow, Space, SpaceLost, point_id, row_of
from rag.index.indexer import engine_of
from rag.index.server_engine import ServerEngine
from tests.support.commands import run_python
from tests.support.loopback_qdrant import API_KEY, make_app, qdrant_server, serving

DIMENSION = 16
# Version ids that no earlier run on a real server used.
VERSIONS = iter(range(int.from_bytes(os.urandom(2)) << 4, 1 << 21))


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    if url := os.environ.get("QDRANT_TEST_URL"):
        yield url
    else:
        with qdrant_server() as url:
            yield url


@pytest.fixture(params=["edge", "server"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = request.getfixturevalue("server_url") if request.param == "server" else None
    opened = engine_of(tmp_path, url)
    yield opened
    opened.close()


@pytest.fixture
def space(engine: Engine) -> Iterator[Space]:
    made = Space(next(VERSIONS), DIMENSION)
    yield made
    engine.drop(made)


def vector(*angles: float) -> NDArray[np.float32]:
    made = np.zeros(DIMENSION, np.float32)
    made[: len(angles)] = angles
    return (made / np.linalg.norm(made)).astype(np.float32)


def passage(row_id: int, tokens: Sequence[int], dense: NDArray[np.float32] | None = None) -> Point:
    return Point(row_id, False, vector(1) if dense is None else dense, tokens, [1.0] * len(tokens))


def question(row_id: int, tokens: Sequence[int], dense: NDArray[np.float32] | None = None) -> Point:
    return Point(row_id, True, vector(1) if dense is None else dense, tokens, [1.0] * len(tokens))


def search(
    engine: Engine,
    space: Space,
    dense: NDArray[np.float32] | None = None,
    tokens: Sequence[int] | None = None,
    limit: int = 30,
    with_questions: bool = False,
) -> tuple[list[ScoredRow], list[ScoredRow]]:
    keywords = None if tokens is None else (tokens, [1.0] * len(tokens))
    return asyncio.run(engine.search(space, dense, keywords, limit, with_questions))


def rows(found: Sequence[ScoredRow]) -> list[tuple[int, bool]]:
    return [(row.row_id, row.is_question) for row in found]


def idf(points: int, holding: int) -> float:
    return float(np.log(1 + (points - holding + 0.5) / (holding + 0.5)))


def test_point_ids_name_version_row_and_kind() -> None:
    assert row_of(point_id(77, 12345, True)) == (12345, True)
    assert row_of(point_id(2**19, 2**43 - 1, False)) == (2**43 - 1, False)
    assert len({point_id(v, r, q) for v in (1, 2) for r in (1, 2) for q in (False, True)}) == 8


def test_each_channel_ranks_by_its_own_score_best_first(engine: Engine, space: Space) -> None:
    points = [passage(1, [5, 6], vector(1)), passage(2, [5], vector(1, 1)), passage(3, [7], vector(0, 1))]
    assert list(engine.write(space, points))[-1] == 3
    dense, keyword = search(engine, space, vector(0, 1), [5, 6])
    assert rows(dense) == [(3, False), (2, False), (1, False)]
    assert [row.score for row in dense] == pytest.approx([1.0, 2**-0.5, 0.0], abs=1e-3)
    assert rows(keyword) == [(1, False), (2, False)]
    assert [row.score for row in keyword] == pytest.approx([idf(3, 2) + idf(3, 1), idf(3, 2)], rel=1e-4)
    assert search(engine, space, vector(0, 1), None)[1] == []
    assert search(engine, space, None, [5])[0] == []
    assert search(engine, space, None, []) == ([], [])
    assert len(search(engine, space, vector(0, 1), [5], limit=1)[0]) == 1


def test_equal_scores_come_by_row_id(engine: Engine, space: Space) -> None:
    list(engine.write(space, [passage(row_id, [9]) for row_id in (30, 10, 20)]))
    dense, keyword = search(engine, space, vector(1), [9])
    assert rows(dense) == rows(keyword) == [(10, False), (20, False), (30, False)]


def test_questions_are_found_only_when_asked_for_and_then_count_for_rarity(engine: Engine, space: Space) -> None:
    points = [passage(1, [5], vector(1)), passage(2, [6], vector(0, 1))]
    points += [question(row_id, [5], vector(1)) for row_id in (1, 2, 3)]
    list(engine.write(space, points))
    dense, keyword = search(engine, space, vector(1), [5])
    assert rows(dense) == [(1, False), (2, False)] and rows(keyword) == [(1, False)]
    assert keyword[0].score == pytest.approx(idf(2, 1), rel=1e-4)
    dense, keyword = search(engine, space, vector(1), [5], with_questions=True)
    assert rows(dense)[:4] == [(1, False), (1, True), (2, True), (3, True)]
    assert keyword[0].score == pytest.approx(idf(5, 4), rel=1e-4)


def test_spaces_never_see_each_other_nor_count_each_others_words(engine: Engine, space: Space) -> None:
    other = Space(next(VERSIONS), DIMENSION)
    list(engine.write(space, [passage(1, [5]), passage(2, [6])]))
    list(engine.write(other, [passage(row_id, [5]) for row_id in range(1, 20)]))
    dense, keyword = search(engine, space, vector(1), [5])
    assert rows(dense) == [(1, False), (2, False)] and rows(keyword) == [(1, False)]
    assert keyword[0].score == pytest.approx(idf(2, 1), rel=1e-4)
    assert engine.drop(other) and engine.count(space) == 2 and not engine.exists(other)


def test_upserts_and_deletes_are_seen_at_once_and_may_be_repeated(engine: Engine, space: Space) -> None:
    list(engine.write(space, [passage(1, [5]), passage(2, [6])]))
    for _ in range(2):
        engine.upsert(space, [passage(2, [7]), question(9, [8])])
        engine.delete(space, [(1, False), (404, True)])
        engine.flush(space)
        assert engine.count(space) == 2
    assert [rows(search(engine, space, None, [token])[1]) for token in (5, 6, 7, 8)] == [[], [], [(2, False)], []]
    assert rows(search(engine, space, None, [8], with_questions=True)[1]) == [(9, True)]


def test_a_space_that_is_not_there_is_lost_and_dropping_it_does_nothing(engine: Engine) -> None:
    nowhere = Space(next(VERSIONS), 3)
    assert not engine.exists(nowhere) and engine.drop(nowhere)
    with pytest.raises(SpaceLost):
        engine.count(nowhere)


def test_both_engines_agree(server_url: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    points = []
    for row_id in range(1, 301):
        tokens = np.unique(generator.zipf(1.4, 20) % 500).tolist()
        dense = generator.normal(size=DIMENSION).astype(np.float32)
        points.append(
            Point(
                row_id, row_id % 4 == 0, dense / np.linalg.norm(dense), tokens, generator.random(len(tokens)).tolist()
            )
        )
    queries = [(generator.normal(size=DIMENSION), np.unique(generator.zipf(1.4, 5) % 500)) for _ in range(20)]
    space, answers = Space(next(VERSIONS), DIMENSION), []
    for url in (None, server_url):
        engine = engine_of(tmp_path, url)
        list(engine.write(space, points))
        found = []
        for dense, tokens in queries:
            for with_questions in (False, True):
                found += search(engine, space, vector(*dense), tokens.tolist(), 10, with_questions)
        answers.append(found)
        engine.drop(space)
        engine.close()
    for edge, server in zip(*answers, strict=True):
        assert [row.score for row in edge] == pytest.approx([row.score for row in server], abs=1e-3)
        assert {row.row_id for row in edge[:5]} == {row.row_id for row in server[:5]}


def test_an_edge_shard_survives_reopening_and_a_second_process_is_refused(tmp_path: Path) -> None:
    space, engine = Space(1, DIMENSION), EdgeEngine(tmp_path)
    list(engine.write(space, [passage(1, [5])]))
    assert engine.count(space) == 1
    program = (
        "import sys; from pathlib import Path\n"
        "from rag.index import edge_engine as e; from rag.index.engine import Space\n"
        "e.LOCK_SECONDS = 0.1; engine = e.EdgeEngine(Path(sys.argv[1])); print(engine.drop(Space(1, 16)))\n"
        "try: engine.count(Space(1, 16))\n"
        "except e.IngestError as error: print(error)"
    )
    ran = run_python("-c", program, str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "False" and "another process is serving it" in ran.stdout
    engine.close()
    reopened = EdgeEngine(tmp_path)
    assert reopened.count(space) == 1
    reopened.close()


def test_a_server_is_waited_for_and_its_absence_is_one_line(tmp_path: Path) -> None:
    with qdrant_server() as url:
        pass
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(IngestError, match=f"^{url}: no Qdrant server answers"):
        ServerEngine(url, start_seconds=0.2)
    late = threading.Event()

    def start_late() -> None:
        with serving(make_app("1.20.0"), port):
            late.wait(30)

    timer = threading.Timer(0.5, start_late)
    timer.start()
    try:
        engine = ServerEngine(url, start_seconds=20)
        assert not engine.exists(Space(1, DIMENSION))
        engine.close()
    finally:
        late.set()
        timer.join()


def test_an_old_server_or_a_refused_key_is_one_line() -> None:
    with qdrant_server("1.18.3") as url, pytest.raises(IngestError, match=r"Qdrant 1\.18\.3, but 1\.19 or later"):
        ServerEngine(url)
    with qdrant_server() as url:
        with pytest.warns(UserWarning, match="insecure"), pytest.raises(IngestError, match="QDRANT_API_KEY"):
            ServerEngine(url, "wrong")
        with pytest.warns(UserWarning, match="insecure"):
            ServerEngine(url, API_KEY).close()


def test_a_server_that_goes_away_is_unavailable_not_empty() -> None:
    space = Space(next(VERSIONS), DIMENSION)
    with qdrant_server() as url:
        engine = ServerEngine(url)
        list(engine.write(space, [passage(1, [5])]))
        assert rows(search(engine, space, vector(1))[0]) == [(1, False)]
    with pytest.raises(EngineUnavailable, match=f"^{url}"):
        search(engine, space, vector(1))
    with pytest.raises(EngineUnavailable):
        engine.upsert(space, [passage(2, [5])])
    engine.close()
