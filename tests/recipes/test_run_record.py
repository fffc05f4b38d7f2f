"""A finished run is recognised, a foreign one is not resumed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes.compose import compose_recipe
from recipes.run_record import check_output, run_record
from reward.records.files import BadInput


@pytest.fixture
def run(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "sft_train.parquet")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"weights")

    def record(*overrides: str):
        paths = [f"recipe.data_dir={tmp_path}", f"recipe.pretrained={tmp_path / 'tiny'}"]
        return run_record("fivedoctors_sft", compose_recipe("sft", ["tenant=fivedoctors", *paths, *overrides]))

    record.folder = tmp_path
    return record


def start(folder, record):
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "latest_checkpointed_iteration.txt").write_text("5")


def finish(folder, record):
    start(folder, record)
    (folder / "final").mkdir()
    (folder / "final" / "run.json").write_text(json.dumps(record))


def test_a_finished_run_is_recognised(run):
    finish(run.folder, run())
    assert check_output(run.folder, run())


def test_a_longer_run_goes_on(run):
    finish(run.folder, run())
    assert not check_output(run.folder, run("trainer.total_training_steps=500"))
    assert not check_output(run.folder, run("recipe.sft.epochs=3"))


def test_an_unfinished_run_goes_on_even_with_the_service_elsewhere(run):
    start(run.folder, run())
    assert not check_output(run.folder, run("rewriter.tenant.rag.url=http://127.0.0.1:9", "recipe.sft.micro_batch=2"))


def test_the_other_trainers_settings_do_not_matter(run):
    finish(run.folder, run("model=tiny"))
    assert check_output(run.folder, run("model=tiny", "recipe.rl.actor_lr=0.5"))


def test_a_start_that_failed_before_its_first_checkpoint_locks_nothing(run):
    start(run.folder, run())
    (run.folder / "latest_checkpointed_iteration.txt").unlink()
    assert not check_output(run.folder, run("recipe.sft.lr=0.5"))


def test_a_torn_record_is_no_record(run):
    finish(run.folder, run())
    (run.folder / "final" / "run.json").write_text('{"recipe"')
    assert not check_output(run.folder, run())


@pytest.mark.parametrize("what", ["config", "data", "start"])
def test_a_foreign_run_is_not_resumed(run, what):
    start(run.folder, run())
    overrides = []
    if what == "config":
        overrides = ["recipe.sft.lr=0.5"]
    elif what == "data":
        pq.write_table(pa.table({"x": [2]}), run.folder / "sft_train.parquet")
    else:
        (run.folder / "tiny" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BadInput, match=f"differs in its {what}"):
        check_output(run.folder, run(*overrides))
