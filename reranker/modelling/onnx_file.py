"""The exported model as an int8 ONNX file for CPUs, and its scores beside the folder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.records.files import BadInput

PLAIN, INT8 = "onnx/model.onnx", "onnx/model_qint8.onnx"
_OPSET = 18
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_onnx(cross_encoder: Any, folder: Path) -> Path:
    """Write `onnx/model_qint8.onnx`: weights of matrix products in int8, activations quantised as they come. Output
    `logits` (pairs, 1) holds the calibrated score before the sigmoid.

    Raises:
        BadInput: the extra `reranker` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise BadInput(f"export.onnx needs the extra 'reranker' ({error})") from None
    import torch

    model = cross_encoder.model
    # The intercept of a head without bias, which the folder keeps in a module of its own.
    shift = float(cross_encoder[1].linear.bias.detach()) if len(cross_encoder) > 1 else 0.0
    features = cross_encoder.preprocess([("a b", "c d e f"), ("g", "h i")])
    names = [name for name in _INPUTS if name in features]

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(**dict(zip(names, values, strict=True))).logits
            return found + shift

    (folder / "onnx").mkdir(exist_ok=True)
    pairs, tokens = (
        torch.export.Dim("pairs", min=1, max=4096),
        torch.export.Dim("tokens", min=2, max=_longest(cross_encoder)),
    )
    plain = folder / PLAIN
    torch.onnx.export(
        Logits().eval(),
        tuple(features[name].cpu() for name in names),
        str(plain),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=(tuple({0: pairs, 1: tokens} for _ in names),),
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    quantize_dynamic(str(plain), str(folder / INT8), weight_type=QuantType.QInt8)
    plain.unlink()
    return folder / INT8


def _longest(cross_encoder: Any) -> int:
    return int(getattr(cross_encoder.model.config, "max_position_embeddings", None) or cross_encoder.max_seq_length)


class OnnxScorer:
    """Scores pairs with an ONNX file; tokenises with the folder's tokenizer.

    Args:
        threads: of a call; 0 is what ONNX Runtime finds.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        import onnxruntime
        from transformers import AutoTokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._session = onnxruntime.InferenceSession(str(folder / INT8), options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]

    def logits(self, pairs: Sequence[tuple[str, str]], batch: int = 32) -> NDArray[np.float64]:
        """Return the score of each pair before the sigmoid; pairs of like length go together."""
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        found = np.zeros(len(pairs))
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            texts = [pairs[i] for i in part]
            features = self.tokenizer(
                [a for a, _ in texts],
                [b for _, b in texts],
                padding=True,
                truncation="longest_first",
                return_tensors="np",
            )
            values = {name: features[name].astype(np.int64) for name in self._names}
            found[part] = self._session.run(None, values)[0][:, 0]
        return found
