"""What the tests of whole training runs share."""

from __future__ import annotations

import pytest

from tests.support.training import Setting


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Data, a tiny model and a retrieval service of a tenant, for the runs of one module."""
    made = Setting(tmp_path_factory.mktemp("setting"), "fivedoctors")
    yield made
    made.service.kill()
