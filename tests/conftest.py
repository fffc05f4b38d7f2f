"""The one switch for the size of a test run, and the order of its files."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests that take a sample at their full size")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Tell a test that takes a sample whether to run at its full size."""
    return bool(request.config.getoption("--full"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the trainer first: its file takes longest, and the other process runs the other files meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_trainer.py")
