"""Moving a data folder's vectors between Edge and a server: all or, knowledge base by knowledge base, nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.catalogue.catalogue import Catalogue
from rag.documents.records import Document, IngestError, Passage
from rag.index.edge_engine import EdgeEngine
from rag.index.engine import Point, ScoredRow, Space
from rag.index.indexer import Indexer, engine_of
from rag.index.server_engine import ServerEngine
from rag.migrate_index import main, migrate_index
from rag.models.embedder import HashingMaker
from tests.support.loopback_qdrant import qdrant_server

GOODS = ("鱼油", "钙片", "益生菌", "维生素", "辅酶", "蛋白粉")


@pytest.fixture
def url() -> Iterator[str]:
    with qdrant_server() as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tenants' knowledge bases, one with changes since it was built, and one that was never built."""
    catalogue = Catalogue(tmp_path)
    indexer = Indexer(catalogue, EdgeEngine(tmp_path), HashingMaker())
    for tenant_id in ("one", "two"):
        kb = catalogue.create_knowledge_base(tenant_id, "default")
        catalogue.put_documents(kb.id, [document(place) for place in range(40)])
        indexer.rebuild(kb, lambda share: None)
    catalogue.put_documents(kb.id, [document(place) for place in range(10, 50)], prune=True)
    catalogue.create_knowledge_base("three", "empty")
    indexer.close()
    catalogue.close()
    return tmp_path


def document(place: int) -> Document:
    text = f"{GOODS[place % 6]}每日{place}粒，{GOODS[place % 5]}隔{place * 7}天。"
    return Document(f"d{place}", (Passage(f"d{place}#1", text, (f"{GOODS[place % 6]}吃{place}粒吗",)),))


def answers(folder: Path, url: str | None) -> dict[str, list[ScoredRow]]:
    catalogue = Catalogue(folder)
    indexer, found = Indexer(catalogue, engine_of(folder, url), HashingMaker()), {}
    for tenant_id in ("one", "two"):
        kb = catalogue.find_knowledge_base(tenant_id, "default")
        assert kb is not None
        opened = indexer.open(kb)
        assert opened is not None
        query = opened.embedder.embed_query("钙片每日21粒")
        found[tenant_id] = asyncio.run(indexer.engine.search(opened.space, query, None, 5, False))[0]
        assert indexer.engine.count(opened.space) == 80
    indexer.close()
    catalogue.close()
    return found


def test_there_and_back_again_answers_stay_the_same(
    folder: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(folder, None)
    assert main(["--index", str(folder), "--to", url, "--retriever", "hashing"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: one/default, 80 points, moved",
        f"{folder}: three/empty, never indexed",
        f"{folder}: two/default, 80 points, moved",
    ]
    there = answers(folder, url)
    assert not any((folder / "versions").iterdir())
    assert main(["--index", str(folder), "--to", url, "--retriever", "hashing"]) == 0
    assert capsys.readouterr().out.count("there already") == 2

    monkeypatch.setenv("QDRANT_URL", url)
    assert main(["--index", str(folder), "--to", "edge", "--retriever", "hashing"]) == 0
    back = answers(folder, None)
    for tenant_id, rows in before.items():
        for moved in (there[tenant_id], back[tenant_id]):
            assert [row.row_id for row in moved] == [row.row_id for row in rows]
            assert [row.score for row in moved] == pytest.approx([row.score for row in rows], abs=1e-3)
    engine = ServerEngine(url)
    assert not any(engine.exists(Space(version_id, 1024)) for version_id in range(1, 20))
    engine.close()


def test_an_interrupted_move_goes_on_with_what_is_left(folder: Path, url: str) -> None:
    class Interrupted(ServerEngine):
        spaces = 0

        def write(self, space: Space, points: Iterable[Point]) -> Iterator[int]:
            self.spaces += 1
            for written in super().write(space, points):
                if self.spaces == 2:
                    raise KeyboardInterrupt
                yield written

    catalogue, lines = Catalogue(folder), list[str]()
    source, target = EdgeEngine(folder), Interrupted(url)
    with pytest.raises(KeyboardInterrupt):
        migrate_index(catalogue, source, target, HashingMaker(), lines.append)
    half = target.spaces
    source.close()
    source = EdgeEngine(folder)
    migrate_index(catalogue, source, ServerEngine(url), HashingMaker(), lines.append)
    assert half == 2 and [line.rsplit(", ", 1)[1] for line in lines] == [
        "moved",
        "never indexed",
        "there already",
        "never indexed",
        "moved",
    ]
    # Nor is anything left of the attempt.
    engine = ServerEngine(url)
    assert sum(engine.count(Space(version_id, 1024)) for version_id in range(1, 20)) == 160
    assert catalogue.retired_versions() == [] and not any((folder / "versions").iterdir())
    source.close()
    catalogue.close()


@pytest.mark.parametrize("fault", ["loses points", "mixes vectors up"])
def test_an_index_that_came_out_different_is_not_published(folder: Path, url: str, fault: str) -> None:
    class Faulty(ServerEngine):
        def write(self, space: Space, points: Iterable[Point]) -> Iterator[int]:
            held = list(points)
            if fault == "loses points":
                yield from super().write(space, held[1:])
                yield len(held)
            else:
                rows = np.roll([point.row_id for point in held], 7).tolist()
                mixed = [
                    Point(row, held[place].is_question, point.dense, point.token_ids, point.weights)
                    for place, (row, point) in enumerate(zip(rows, held, strict=True))
                ]
                yield from super().write(space, mixed)

    before = answers(folder, None)
    catalogue, source, target = Catalogue(folder), EdgeEngine(folder), Faulty(url)
    with pytest.raises(IngestError, match=r"80 points were written, 79 are there|agree on \d+% of hits only"):
        migrate_index(catalogue, source, target, HashingMaker(), print)
    source.close()
    target.close()
    catalogue.close()
    assert answers(folder, None) == before


def test_what_cannot_be_moved_is_one_line(
    folder: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QDRANT_URL", raising=False)
    assert main(["--index", str(folder), "--to", "edge", "--retriever", "hashing"]) == 2
    assert main(["--index", str(folder / "nowhere"), "--to", url, "--retriever", "hashing"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: QDRANT_URL: name the server to move away from",
        f"error: {folder / 'nowhere'}: no data folder",
    ]
    for shard in (folder / "versions").iterdir():
        (shard / "edge_config.json").write_bytes(b"garbage")
    assert main(["--index", str(folder), "--to", url, "--retriever", "hashing"]) == 2
    assert "one/default: its index cannot be opened: build it again" in capsys.readouterr().err
