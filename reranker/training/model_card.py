"""The exported folder's README: what it is, how it was made, how good it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(result: Mapping[str, Any]) -> str:
    """Render `result.json` as Markdown with the metadata that model hubs read."""
    rows = [
        f"| {name} | {one['queries']} | {one['before']:.4f} | {one['after']:.4f} | "
        f"{one['change']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}] |"
        for name, one in (("validation", result["validation"]), ("forgetting", result["forgetting"]))
    ]
    onnx = result.get("onnx")
    calibration = result["calibration"]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: text-ranking",
        "tags: [cross-encoder, reranker]",
        f"base_model: {result['base']['name']}",
        "---",
        "# Reranker",
        "",
        f"Trained from `{result['base']['name']}` ({result['method']}, loss {result['loss']}, seed {result['seed']}).",
        "",
        "| nDCG@10 | queries | base | this model | change, 95 % interval |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Scores are logits; their sigmoid is the probability that a candidate answers, as measured on the validation "
        f"set (Platt: slope {calibration['slope']:.4f}, intercept {calibration['intercept']:.4f}, written into the "
        f"weights; calibration error on the forgetting set {result['calibration_error']['before']:.3f} → "
        f"{result['calibration_error']['after']:.3f}).",
        f"Largest difference between the trained model's scores and this folder's: {result['score_shift']:.1e}.",
    ]
    if result["intercept_module"]:
        lines.append(
            "The head has no bias: the intercept is in `1_Dense`, which sentence-transformers applies. A reader that "
            "ignores it keeps the order of scores and shifts each by that constant."
        )
    if onnx and "file" in onnx:
        lines.append(f"`{onnx['file']}`: mean difference {onnx['mean_difference']:.4f}, largest {onnx['largest']:.4f}.")
    lines += ["", "| made of | |", "|---|---|"]
    for name in ("data_sha256", "config_sha256"):
        lines.append(f"| {name} | `{result[name]}` |")
    lines.append(f"| base_sha256 | `{result['base']['sha256']}` |")
    lines.append(f"| queries | train {result['data']['train']}, validation {result['data']['validation']} |")
    lines.append(f"| steps | {result['steps']}, best at {result['best_step']} |")
    lines.append(f"| alarms | {', '.join(one['alarm'] for one in result['alarms']) or 'none'} |")
    lines += [f"| {name} | {version} |" for name, version in result["versions"].items()]
    return "\n".join(lines) + "\n"
