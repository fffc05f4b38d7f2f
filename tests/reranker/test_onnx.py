"""The int8 ONNX file gives nearly the folder's scores, padded or alone."""

import json

import numpy as np
import pytest

from reranker.modelling.calibration import Platt
from reranker.modelling.export import open_folder, write_folder
from reranker.modelling.opening import open_model
from reranker.modelling.scoring import logits, shares
from reranker.train import main
from tests.reranker.test_models import MAKE, PAIRS
from tests.support.reranker_sets import write_run

pytest.importorskip("onnxruntime", reason="the extra 'reranker' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'reranker' is not installed")

from reranker.modelling.onnx_file import OnnxScorer, write_onnx


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_the_int8_file_scores_like_the_folder(tmp_path, kind):
    write_folder(open_model(MAKE[kind](tmp_path / "base"), 48).cross_encoder, Platt(0.5, -0.3), 48, tmp_path / "model")
    model = open_folder(tmp_path / "model")
    write_onnx(model, tmp_path / "model")
    scorer = OnnxScorer(tmp_path / "model")
    found = scorer.logits(PAIRS)
    np.testing.assert_allclose(shares(found), shares(logits(model, PAIRS)), atol=0.1)
    np.testing.assert_allclose(found, [scorer.logits([pair])[0] for pair in PAIRS], atol=0.2)
    assert not (tmp_path / "model" / "onnx" / "model.onnx").exists()


def test_a_run_exports_it_and_says_how_far_its_scores_differ(tmp_path):
    export = {"onnx": True, "onnx_tolerance": 1, "forgetting_tolerance": 1}
    assert main(["--config", str(write_run(tmp_path, training={"epochs": 6}, export=export))]) == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())["onnx"]
    assert (tmp_path / "out" / "model" / found["file"]).is_file() and 0 <= found["mean_difference"] <= found["largest"]
    assert found["file"] in (tmp_path / "out" / "model" / "README.md").read_text()


def test_a_file_whose_scores_differ_too_much_is_not_shipped(tmp_path):
    export = {"onnx": True, "onnx_tolerance": 1e-9, "forgetting_tolerance": 1}
    assert main(["--config", str(write_run(tmp_path, training={"epochs": 6}, export=export))]) == 0
    assert "above" in json.loads((tmp_path / "out" / "result.json").read_text())["onnx"]["refused"]
    assert not (tmp_path / "out" / "model" / "onnx").exists()
