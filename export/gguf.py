"""Turn a model folder into a GGUF file with an Ollama Modelfile, and check that it answers as the checkpoint does.

    pip install 'sales-rag-rewriter[gguf]'
    python -m export.gguf --model outputs/rl/fivedoctors/final --type q4_k_m --tenant fivedoctors
    ollama create fivedoctors -f outputs/rl/fivedoctors/final-q4_k_m/Modelfile
    python -m export.gguf --model outputs/rl/expansion/final --type q4_k_m --task expansion

llama.cpp converts and quantises. The Modelfile's template gives the prompts of the training, thinking off; with
`--tenant` it holds the tenant's system prompt. With `--task expansion` it holds the whole prompt of query expansion:
requests bring the query alone. Then llama.cpp runs the file on questions in the training's form. It
must read every prompt as the checkpoint's tokens, and choose at least 95 % (q8_0) or 80 % (q4_k_m) of the tokens of the
checkpoint's greedy answers, each after the same prefix. Otherwise nothing is exported. The folder appears complete or
not at all, with a `provenance.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from evaluation.systems import answer_limit, model_hash
from export.llama_cpp.conversion import Quantisation, convert, quantise, tool_versions
from export.llama_cpp.modelfile import (
    CONTEXT,
    EXPANSION_PARAMETERS,
    ChatTemplate,
    QueryTemplate,
    modelfile,
    read_chat_template,
    read_query_template,
    render,
)
from export.llama_cpp.prompts import verification_messages, verification_queries
from export.llama_cpp.verification import TOLERANCE, answer_greedily, verify
from reward.expansion.prompt import TEMPLATE
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256
from reward.settings.recipe import load_tenant

Task = Literal["rewrite", "expansion"]
MODELFILE, PROVENANCE = "Modelfile", "provenance.json"


@dataclass(frozen=True, kw_only=True)
class GgufOptions:
    """What to export.

    Args:
        model: Hugging Face model folder.
        type: of the quantisation.
        out: folder to write; None: `<model>-<type>`.
        tenant: name or YAML file of the tenant whose system prompt the Modelfile holds.
        test: held-out samples (JSONL), or queries of an expansion, to verify with in the place of built-in ones.
        task: what the model was trained for: its prompt.
    """

    model: Path
    type: Quantisation
    out: Path | None = None
    tenant: str | None = None
    test: Path | None = None
    task: Task = "rewrite"


@command
def main(argv: list[str] | None = None) -> int:
    options = GgufOptions(**vars(_parse_args(argv)))
    out, record = export_gguf(options)
    found = record["verification"]
    print(
        f"{out}: {record['bytes'] / 1e6:.0f} MB; on {found['prompts']} prompts it chooses {found['agreement']:.1%} of "
        f"{found['tokens']} tokens as the checkpoint does, {found['identical']} answers are identical"
    )
    return 0


def export_gguf(options: GgufOptions) -> tuple[Path, dict[str, Any]]:
    """Convert, quantise, verify, write. Returns the folder and the provenance written.

    Raises:
        BadInput: the model cannot be exported, or the export answers otherwise than the checkpoint.
    """
    from transformers import AutoTokenizer

    versions = tool_versions() | {name: metadata.version(name) for name in ("torch", "transformers")}
    if options.task == "expansion" and options.tenant:
        raise BadInput("--tenant: the prompt of query expansion has no system message")
    tenant = load_tenant(options.tenant) if options.tenant else None
    sha256 = model_hash(options.model)
    model = options.model.resolve()
    out = options.out or model.with_name(f"{model.name}-{options.type}")
    if out.exists() and not (out / MODELFILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: exists and is no export; choose another --out")

    # What is cheap to refuse is refused before the first conversion: template, prompts, tokenizer.
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise BadInput(f"{model}: tokenizer does not load: {str(error).splitlines()[0]}") from None
    template: ChatTemplate | QueryTemplate
    if options.task == "expansion":
        template, conversations = read_query_template(tokenizer, str(model)), verification_queries(options.test)
    else:
        template, conversations = read_chat_template(tokenizer, str(model)), verification_messages(tenant, options.test)
    texts = [_checked_prompt(tokenizer, template, messages, model) for messages in conversations]
    name = f"model-{options.type}.gguf"
    text = modelfile(
        name,
        template,
        system=tenant.system_prompt if tenant else None,
        stop=_stop_texts(tokenizer, model),
        context=CONTEXT,
        max_new_tokens=answer_limit(model),
        parameters=EXPANSION_PARAMETERS if options.task == "expansion" else {},
    )
    prompts = answer_greedily(model, texts, tokenizer, max_new_tokens=answer_limit(model))

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        convert(model, partial / "model-16.gguf")
        quantise(partial / "model-16.gguf", partial / name, options.type)
        verification = verify(partial / name, prompts, options.type)
        record = {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": str(model),
            "model_sha256": sha256,
            "type": options.type,
            "task": options.task,
            "bytes": (partial / name).stat().st_size,
            "gguf_sha256": file_sha256(partial / name),
            "tenant": tenant.tenant_id if tenant else None,
            "verification": {**asdict(verification), "tolerance": TOLERANCE[options.type]},
            "versions": versions,
        }
        for leftover in partial.glob("model-16.*"):
            leftover.unlink()
        (partial / MODELFILE).write_text(text, encoding="utf-8")
        (partial / PROVENANCE).write_text(json.dumps(record, ensure_ascii=False, indent=2), encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out, record


def _checked_prompt(
    tokenizer: Any, template: ChatTemplate | QueryTemplate, messages: Sequence[dict[str, str]], model: Path
) -> str:
    """Return a prompt as training renders it. Raises BadInput where the Modelfile's template gives another."""
    expected = render(tokenizer, messages)
    if isinstance(template, QueryTemplate):
        before, after = TEMPLATE.split("{query}")
        given = template.prompt(messages[0]["content"].removeprefix(before).removesuffix(after))
    else:
        system, user = (message["content"] for message in messages)
        given = template.prompt(system, user)
    if given != expected:
        raise BadInput(f"{model}: the chat template changes the text of its messages; no Modelfile can do that")
    return expected


def _stop_texts(tokenizer: Any, model: Path) -> list[str]:
    """Return the texts that end an answer: the end tokens of the generation config, else the tokenizer's."""
    try:
        ends = json.loads((model / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        ends = None
    if ends is None:
        ends = tokenizer.eos_token_id
    ids = ends if isinstance(ends, list) else [ends]
    return [tokenizer.decode([one]) for one in ids if one is not None]


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.gguf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model folder")
    parser.add_argument("--type", choices=get_args(Quantisation), required=True, help="quantisation")
    parser.add_argument("--out", type=Path, help="folder to write (default: MODEL-TYPE)")
    parser.add_argument("--tenant", help="tenant whose system prompt the Modelfile holds: a name, or its YAML file")
    parser.add_argument("--test", type=Path, help="held-out samples (JSONL), or queries, to verify with")
    parser.add_argument("--task", choices=get_args(Task), default="rewrite", help="what the model was trained for")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
