"""The command, end to end on tiny models: trained, judged, exported; cut off and resumed; refused."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from reranker.train import REFUSED, UNFINISHED, main
from tests.support.commands import run_python
from tests.support.reranker_sets import lists, served_scores, write_lists, write_run

BAD_ROW = {"query_text": "坏行吗", "positives": []}


def result_of(folder):
    return json.loads((folder / "out" / "result.json").read_text())


def train(path, *arguments):
    return main(["--config", str(path), *arguments])


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("base", "training"),
    [("bert", {"loss": "margin"}), ("qwen3", {"loss": "bce", "method": "lora"})],
    ids=["encoder, margin, full", "Qwen3, pointwise, LoRA"],
)
def test_a_trained_model_is_better_and_the_service_gives_its_score(tmp_path, base, training, capsys):
    rows = [*lists(40), BAD_ROW]
    path = write_run(
        tmp_path, rows=rows, base=base, training=training | {"epochs": 6}, export={"forgetting_tolerance": 1}
    )
    assert train(path) == 0
    found = result_of(tmp_path)
    assert found["validation"]["change"] > 0 and found["score_shift"] < 1e-4
    assert found["data"]["left_out"] == 1 and "row 41" in (tmp_path / "out" / "left_out.jsonl").read_text()
    # A validation pair: the service's score is the sigmoid of the calibrated logit, as the folder gives it.
    group = json.loads((tmp_path / "out" / "validation.jsonl").read_text().splitlines()[0])
    texts = {p["doc_id"]: p["text"] for row in rows for side in ("positives", "negatives") for p in row.get(side, [])}
    passages = [texts[name] for name in (*group["relevant"], *group["other"])]
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(tmp_path / "out" / "model"), local_files_only=True)
    served = served_scores(tmp_path / "out" / "model", group["query"], passages)
    np.testing.assert_allclose(served, model.predict([(group["query"], text) for text in passages]), atol=1e-5)
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert found["data_sha256"] in card and found["config_sha256"] in card and "validation" in card
    assert ("1_Dense" in card) == (base == "qwen3")
    # Done is done.
    capsys.readouterr()
    assert train(path) == 0 and "written" in capsys.readouterr().out


def test_a_model_trained_in_bfloat16_ships_with_the_scores_it_was_judged_by(tmp_path):
    training = {"precision": "bf16", "epochs": 6}
    assert train(write_run(tmp_path, training=training, export={"forgetting_tolerance": 1})) == 0
    found = result_of(tmp_path)
    assert found["validation"]["change"] > 0 and found["score_shift"] < 1e-4


@pytest.mark.parametrize(("base", "method"), [("bert", "full"), ("bare", "lora")])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tmp_path, base, method):
    export = {"forgetting_tolerance": 1}
    whole = write_run(tmp_path / "whole", base=base, training={"method": method, "patience": 2}, export=export)
    parts = write_run(tmp_path / "parts", base=base, training={"method": method, "patience": 2}, export=export)
    assert train(whole) in (0, REFUSED)
    assert train(parts, "--stop-after", "5") == UNFINISHED  # within the first epoch
    assert train(parts, "--stop-after", "13") == UNFINISHED  # within the second
    assert train(parts) in (0, REFUSED)
    a, b = result_of(tmp_path / "whole"), result_of(tmp_path / "parts")
    assert a["metrics"] == b["metrics"] and a["steps"] == b["steps"] and a["calibration"] == b["calibration"]
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    last = f"checkpoint-{a['steps']}"
    before, after = (load_file(tmp_path / part / "out" / "checkpoints" / last / name) for part in ("whole", "parts"))
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key], err_msg=key)


@pytest.mark.full
def test_a_run_that_was_cut_off_while_it_was_exported_is_exported(tmp_path):
    path = write_run(tmp_path, training={"patience": 1, "epochs": 9}, export={"forgetting_tolerance": 1})
    assert train(path) in (0, REFUSED)
    first = result_of(tmp_path)
    (tmp_path / "out" / "result.json").unlink()
    assert train(path) in (0, REFUSED)
    assert result_of(tmp_path) == first


def test_a_base_whose_scores_are_no_numbers_is_one_line(tmp_path, capsys):
    path = write_run(tmp_path)
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["classifier.bias"].fill_(float("nan"))
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    assert train(path) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: 32 of 32 scores are no numbers")


def test_a_model_that_is_not_better_is_not_exported_and_one_line_says_so(tmp_path, capsys):
    path = write_run(tmp_path, training={"learning_rate": 1e-12, "epochs": 1})
    assert train(path) == REFUSED
    assert "refused: not better than the base model on the validation set" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model").exists() and not list((tmp_path / "out").glob("*.partial"))


@pytest.mark.full
def test_a_model_that_forgot_is_not_exported(tmp_path, capsys):
    # The general set holds the opposite: what has 否 answers.
    opposite = lists(12, seed=9)
    for row in opposite:
        row["positives"], row["negatives"] = row["negatives"][:1], row["positives"]
    general = write_lists(tmp_path / "general.jsonl", opposite)
    data = {"forgetting": [str(general)]}
    training = {"epochs": 6, "precision": "fp32"}  # the same on every CPU
    assert train(write_run(tmp_path, data=data, training=training)) == REFUSED
    assert "refused: worse than the base model on the forgetting set" in capsys.readouterr().err


def test_every_loss_trains(tmp_path):
    for loss in ("ranknet", "margin_mse"):
        rows = lists(24)
        for row in rows:
            for side, of in (("positives", 4.0), ("negatives", -2.0)):
                row[side] = [passage | {"score": of} for passage in row[side]]
        training = {"loss": loss, "epochs": 1}
        assert train(write_run(tmp_path / loss, rows=rows, training=training)) in (0, REFUSED)
        log = (tmp_path / loss / "out" / "metrics.jsonl").read_text().splitlines()
        assert any("loss" in json.loads(line) for line in log)


@pytest.mark.full
def test_margin_mse_takes_its_margins_from_a_teacher(tmp_path):
    assert train(write_run(tmp_path / "teacher", training={"epochs": 6}, export={"forgetting_tolerance": 1})) == 0
    teacher = str(tmp_path / "teacher" / "out" / "model")
    training = {"loss": "margin_mse", "teacher": teacher, "epochs": 1}
    assert train(write_run(tmp_path / "student", training=training)) in (0, REFUSED)


@pytest.mark.full
def test_a_base_that_learns_nothing_raises_the_alarm(tmp_path):
    rows = lists(60)
    for row in rows:  # nothing tells an answer from the others
        for passage in (*row["positives"], *row["negatives"]):
            passage["text"] = passage["text"].replace("是", "天").replace("否", "天")
    training = {"learning_rate": 1e-3, "epochs": 6, "batch_size": 4, "loss": "ranknet"}
    train(write_run(tmp_path, rows=rows, base="bare", training=training))
    assert "at_chance" in {alarm["alarm"] for alarm in result_of(tmp_path)["alarms"]}


BAD_RUNS = [
    ({"rows": lists(1)}, "training data of 1 query"),
    ({"rows": [row | {"positives": [{"doc_id": "p", "text": "同"}]} for row in lists(9)]}, "independent group"),
    ({"rows": [row | {"positives": row["negatives"]} for row in lists(9)]}, "no query is left"),
    ({"base": "gone"}, "no model's folder"),
    ({"max_length": 4096}, "reads 64 at most"),
    ({"training": {"loss": "margin_mse"}}, "needs a teacher's scores"),
    ({"training": {"loss": "margin_mse", "teacher": "gone"}}, "no model that can be loaded"),
    ({"data": {"train": ["gone.jsonl"]}}, "no such file or folder"),
]


@pytest.mark.parametrize(("changes", "line"), BAD_RUNS)
def test_what_cannot_be_trained_is_one_line(tmp_path, changes, line, capsys):
    base = changes.get("base")
    path = write_run(tmp_path, **{name: value for name, value in changes.items() if name != "base"})
    if base:
        path.write_text(path.read_text().replace(str(tmp_path / "base"), base))
    assert train(path) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and line in error


def test_a_folder_of_another_run_is_not_written_over(tmp_path, capsys):
    assert train(write_run(tmp_path), "--stop-after", "2") == UNFINISHED
    assert train(write_run(tmp_path, seed=1)) == 2
    assert "holds a run of other settings" in capsys.readouterr().err
    assert train(write_run(tmp_path, rows=lists(44))) == 2
    assert "holds a run of other data" in capsys.readouterr().err


def test_queries_without_negatives_train_with_random_ones(tmp_path):
    path = write_run(tmp_path, rows=lists(40, negatives=0), training={"epochs": 1})
    assert train(path) in (0, REFUSED)
    assert result_of(tmp_path)["data"]["without_negatives"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("base", ["bert", "bare", "qwen3"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("loss", ["margin", "ranknet", "bce"])
def test_every_base_method_and_loss_learns(tmp_path, base, method, loss):
    training = {"method": method, "loss": loss, "epochs": 12}
    path = write_run(tmp_path, rows=lists(120), base=base, training=training, export={"forgetting_tolerance": 1})
    assert train(path) == 0


def test_the_command_says_what_it_is_without_loading_a_model():
    asked = run_python("-m", "reranker.train", "--help")
    assert asked.returncode == 0 and "exit codes" in asked.stdout
    missing = run_python("-m", "reranker.train", "--config", "gone.yaml")
    assert missing.returncode == 2 and missing.stderr.strip() == "error: gone.yaml: no such file"
