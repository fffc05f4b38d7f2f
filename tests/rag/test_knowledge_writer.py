"""What a write does while other tenants search."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rag.catalogue.catalogue import Catalogue
from rag.fair_shares import REST, FairShares
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from rag.service.knowledge_writer import KnowledgeWriter
from rag.service.metrics import Metrics
from rag.settings import ServiceSettings


class BuildsHere(Exception):
    pass


@pytest.mark.parametrize("others", [True, False])
def test_a_first_index_is_built_in_another_process_while_others_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr("rag.fair_shares.ACTIVE_SECONDS", 600.0)  # however slow the machine
    catalogue = Catalogue(tmp_path)
    searches = FairShares(1, REST)
    indexer = Indexer(catalogue, open_engine(tmp_path), embedder_maker("hashing"), searches)

    def rebuild(*_: object) -> None:
        raise BuildsHere

    monkeypatch.setattr(indexer, "rebuild", rebuild)
    file = tmp_path / "note.txt"
    file.write_text("鱼油 每日两粒", encoding="utf-8")

    async def put() -> None:
        writer = KnowledgeWriter(catalogue, indexer, ServiceSettings(retriever="hashing"), Metrics(catalogue))
        async with searches.place("other" if others else "shop"):
            pass
        kb = catalogue.create_knowledge_base("shop", "default")
        await writer.put(kb, file, "note.txt", is_gone)

    async def is_gone() -> bool:
        return False

    if others:
        asyncio.run(put())
        now = catalogue.find_knowledge_base("shop", "default")
        assert now is not None and now.live_version is not None and indexer.open(now) is not None
    else:
        with pytest.raises(BuildsHere):
            asyncio.run(put())
    indexer.close()
    catalogue.close()
