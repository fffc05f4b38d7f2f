"""A tenant with a retrieval service on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rank_service import RankService, write_shop


@pytest.fixture
def service() -> Iterator[RankService]:
    running = RankService()
    yield running
    running.close()


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop.yaml")
