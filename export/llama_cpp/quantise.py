"""Quantise a GGUF file: python -m export.llama_cpp.quantise SOURCE OUT FILE_TYPE (of llama.cpp's enum llama_ftype)."""

from __future__ import annotations

import os
import sys

from cyllama.llama import llama_cpp


def main(source: str, out: str, file_type: str) -> int:
    llama_cpp.disable_logging()
    parameters = llama_cpp.LlamaModelQuantizeParams()
    parameters.ftype = int(file_type)
    parameters.nthread = os.cpu_count() or 1
    llama_cpp.model_quantize(source, out, parameters)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
