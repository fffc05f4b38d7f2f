"""What is written is its owner's alone, whatever the user's umask allows."""

import os
import stat

import pytest

from data_prep.bvt.progress import appending
from rag.catalogue.catalogue import Catalogue
from reward.ledger.ledger import Ledger
from reward.records.commands import command
from reward.records.files import write_atomically
from reward.rollouts.rollout_log import RolloutLog
from reward.settings.recipe import LedgerSettings
from tests.support.logged_rollouts import make_rollout


@pytest.fixture(autouse=True)
def open_umask():
    mask = os.umask(0)
    yield
    os.umask(mask)


def modes(folder):
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


def test_ledger_with_its_log(tmp_path):
    ledger = Ledger(LedgerSettings(path=tmp_path / "run" / "ledger.sqlite", run_id="r"))
    ledger.keep_passages({"a": "鱼油"})
    found = modes(tmp_path)
    ledger.close()
    assert found.pop("run") == "0o700"
    assert found == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), "0o600")


def test_rollouts(tmp_path):
    log = RolloutLog(tmp_path / "run" / "rollouts")
    log.append(make_rollout(1, 1))
    log.close()
    assert modes(tmp_path) == {"run": "0o700", "rollouts": "0o700", "rollouts-00000.jsonl": "0o600"}


def test_catalogue(tmp_path):
    catalogue = Catalogue(tmp_path / "data")
    catalogue.create_knowledge_base("t", "kb")
    found = modes(tmp_path)
    catalogue.close()
    assert found.pop("data") == "0o700"
    assert {"catalogue.sqlite", "catalogue.sqlite-wal"} <= set(found) and set(found.values()) == {"0o600"}


def test_files_and_folders_of_data_sets(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "out.jsonl", ["{}"])
    with appending(tmp_path / "a" / "answers.progress.jsonl"):
        pass
    assert modes(tmp_path) == {
        "a": "0o700",
        "b": "0o700",
        "out.jsonl": "0o600",
        "answers.progress.jsonl": "0o600",
    }


def test_a_file_that_others_may_read_is_replaced_by_one_they_may_not(tmp_path):
    (tmp_path / "out.jsonl").write_text("old")
    (tmp_path / "out.jsonl.partial").write_text("left by a kill")
    write_atomically(tmp_path / "out.jsonl", ["{}"])
    assert modes(tmp_path) == {"out.jsonl": "0o600"}


def test_whatever_a_command_writes(tmp_path):
    @command
    def main() -> int:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text("")
        return 0

    assert main() == 0
    assert modes(tmp_path) == {"folder": "0o700", "file": "0o600"}
    assert os.umask(0) == 0  # its caller's again
