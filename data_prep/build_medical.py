"""Turn gold, red-team, dev and test files of a medical assistant into RL prompts, SFT data and evaluation sets.

    python -m data_prep.build_medical --gold gold_set.jsonl --red red_team.jsonl --dev dev.jsonl --test test.jsonl \\
        --tenant medical --out data/rl
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.dataset.artefacts import (
    MESSAGES,
    code_sha256,
    is_current,
    settings_sha256,
    write_manifest,
    writing_parquet,
)
from data_prep.medical.card import Facts, data_card, describe
from data_prep.medical.rows import MedicalRow, Refused, Source, read_rows
from data_prep.medical.sampling import Draw, draw_prompts
from data_prep.questions.leakage import drop_leaking
from data_prep.questions.question_sets import question_keys
from data_prep.questions.split import Shares, Split, assign_split, bare
from reward.medical.prompt import build_messages, build_sft_messages, write_completion
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically, writing_lines
from reward.records.medical import HIGH_RISK
from reward.records.sample import Context, Metadata, Sample
from reward.settings.recipe import TenantSettings, load_tenant

PROMPTS_FILE, CARD_FILE, MANIFEST_FILE, QUARANTINE_FILE = (
    "training_prompts.jsonl", "DATA_CARD.md", "medical_dataset.json", "quarantine.jsonl",
)  # fmt: skip
_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string()), ("sample", pa.string())])),
    ]
)
_SFT_SCHEMA = pa.schema([("messages", MESSAGES)])
_VALIDATION = 0.1

_MANUAL = """\
what is read
  One JSON object a line: question (query, prompt, input …), answer, think (the chain; or <think>…</think> in the
  answer), category, high_risk; or messages. Gold rows need chain and answer to be SFT samples.

what is written to DIR
  training_prompts.jsonl       canonical samples, stratified; at least 40 % from the red team or marked high-risk
  rl_{train,val}.parquet       for verl
  sft_{train,val}.parquet      for verl, column messages with the chain; sft_{train,val}.jsonl the same
  eval_{dev,test,gold,red}.jsonl   held out: the test file whole, of the others the share --held-out
  DATA_CARD.md, quarantine.jsonl (file, row, reason), medical_dataset.json (hashes of input, settings, code, outputs)
  No training prompt asks what a held-out question asks, or nearly. The same files and seed give the same bytes.

exit codes
  0 written, or nothing to do; 2 bad input, in one line
"""


@dataclass(frozen=True, kw_only=True)
class MedicalOptions:
    """What `build_medical` is asked for.

    Args:
        prompts: the most training prompts.
        high_risk_share: in [0, 1]: the least share of high-risk training prompts.
        held_out: in [0, 1): share of gold, red-team and dev rows that are evaluated on and never trained on.
    """

    gold: Path
    red: Path
    dev: Path | None
    test: Path | None
    tenant: str
    out: Path
    prompts: int = 2000
    high_risk_share: float = 0.4
    held_out: float = 0.3
    seed: int = 0


def build_medical(options: MedicalOptions) -> None:
    """Build the prompt set, unless it is up to date; print what is in it.

    Raises:
        BadInput: an option or a file cannot be used, no gold row has a chain, or the high-risk share cannot be kept.
    """
    for name in ("high_risk_share", "held_out"):
        value = getattr(options, name)
        if not 0 <= value < 1:
            raise BadInput(f"--{name.replace('_', '-')} {value}: outside [0, 1)")
    tenant = load_tenant(options.tenant)
    files: dict[Source, Path] = {"gold": options.gold, "red_team": options.red}
    files |= {"dev": options.dev} if options.dev else {}
    files |= {"test": options.test} if options.test else {}
    request = _request(options, files, tenant)
    if is_current(options.out / MANIFEST_FILE, request):
        print(f"{options.out}: up to date, nothing to do")
        return

    # Read every file; the same question counts once, where it comes first.
    rows, refused = _read(files, tenant)
    for source, path in files.items():
        print(f"{path}: {describe([row for row in rows if row.source == source])}")
    gold = [row for row in rows if row.source == "gold"]
    chained = [row for row in gold if row.chain and row.answer]
    if gold and not chained:
        raise BadInput(
            f"{options.gold}: row {gold[0].row}: has no chain (field think, or <think>…</think> in the answer) or "
            f"nothing after it, and so have all {len(gold)} rows: nothing teaches the assistant to reason"
        )

    # What is evaluated on never trains, nor does what asks nearly the same.
    shares: Shares = (("test", options.held_out), ("train", 1 - options.held_out))
    held = [row for row in rows if row.source == "test" or assign_split(row.question, shares, options.seed) == "test"]
    held_keys = {(row.source, row.row) for row in held}
    pool = [row for row in rows if (row.source, row.row) not in held_keys]
    pool, leaking = _without_leaks(pool, held, tenant)
    names = {source: path.name for source, path in files.items()}
    refused += [Refused(names[row.source], row.row, "asks nearly what a held-out question asks") for row in leaking]
    validation_shares: Shares = (("val", _VALIDATION), ("train", 1 - _VALIDATION))
    validation = [row for row in pool if assign_split(row.question, validation_shares, options.seed + 1) == "val"]
    rest = [row for row in pool if row not in validation]
    draw = draw_prompts(rest, options.prompts, options.high_risk_share, options.seed)
    if not draw.rows or not validation:
        raise BadInput(
            f"{options.red}: {sum(row.high_risk for row in rest)} high-risk and {len(rest)} rows in all are left to "
            f"train on, {len(validation)} to validate on; at least {options.high_risk_share:.0%} must be high-risk"
        )

    facts = _write(options, tenant, request, draw, validation, pool, held, rows, refused, files)
    print(
        f"training prompts: {len(draw.rows)}, high-risk {draw.high_risk_share:.1%}; left out to keep the share: "
        f"{sum(draw.left_out.values())}; SFT samples: {facts.sft}; gold rows without a chain or an answer: "
        f"{facts.without_chain}"
    )
    print(f"not used: {len(refused)} rows, see {options.out / QUARANTINE_FILE}")
    print(f"written: {options.out}")


def _read(files: dict[Source, Path], tenant: TenantSettings) -> tuple[list[MedicalRow], list[Refused]]:
    rows: list[MedicalRow] = []
    refused: list[Refused] = []
    first: dict[str, str] = {}
    # A question of the test file, or of the red team, is theirs, wherever else it occurs.
    for source in sorted(files, key=("test", "red_team", "gold", "dev").index):
        found = 0
        for row in read_rows(files[source], source, tenant.deidentify):
            if isinstance(row, Refused):
                refused.append(row)
                continue
            found += 1
            key = bare(row.history + row.question)
            if key in first:
                refused.append(Refused(files[source].name, row.row, f"the same question is in {first[key]}"))
            else:
                first[key] = f"{files[source].name} row {row.row}"
                rows.append(row)
        if not found:
            raise BadInput(f"{files[source]}: holds no question that can be read")
    order = list(files)
    return sorted(rows, key=lambda row: (order.index(row.source), row.row)), refused


def _without_leaks(
    pool: Sequence[MedicalRow], held: Sequence[MedicalRow], tenant: TenantSettings
) -> tuple[list[MedicalRow], list[MedicalRow]]:
    if not pool or not held:
        return list(pool), []
    keys, held_keys = (question_keys(pa.array([row.question for row in some])) for some in (pool, held))
    leaks = drop_leaking(keys, held_keys, tenant.filters.near_duplicate)
    kept = [row for row, leak in zip(pool, leaks, strict=True) if not leak]
    return kept, [row for row, leak in zip(pool, leaks, strict=True) if leak]


def to_sample(row: MedicalRow, tenant: TenantSettings, split: Split, *, with_answer: bool = False) -> Sample:
    """Return a row as a canonical sample; its slices are its file, its category and `high_risk`.

    Args:
        with_answer: keep the answer to imitate, with its chain.
    """
    digest = hashlib.sha256(f"{row.history}\n{row.question}".encode()).hexdigest()[:10]
    slices = [row.source, *([HIGH_RISK] if row.high_risk else []), *([row.category] if row.category else [])]
    return Sample(
        sample_id=f"{tenant.short_id}_{row.source}_{digest}",
        original_query=row.question,
        rewritten_query=write_completion(row.chain, row.answer) if with_answer and row.chain and row.answer else "",
        context=Context(history_context=row.history),
        metadata=Metadata(tenant_id=tenant.tenant_id, split=split, slices=tuple(slices)),
    )


def _write(
    options: MedicalOptions,
    tenant: TenantSettings,
    request: dict[str, Any],
    draw: Draw,
    validation: Sequence[MedicalRow],
    pool: Sequence[MedicalRow],
    held: Sequence[MedicalRow],
    rows: Sequence[MedicalRow],
    refused: Sequence[Refused],
    files: dict[Source, Path],
) -> Facts:
    out = options.out
    outputs = [out / PROMPTS_FILE, out / CARD_FILE, out / QUARANTINE_FILE]
    training = [to_sample(row, tenant, "train") for row in draw.rows]
    write_atomically(outputs[0], (sample.to_json() for sample in training))
    by_split: dict[Split, list[Sample]] = {"train": training, "val": [to_sample(r, tenant, "val") for r in validation]}
    for split, samples in by_split.items():
        outputs.append(out / f"rl_{split}.parquet")
        _write_rl(outputs[-1], samples, tenant)

    # Samples to imitate: rows with a chain that are neither held out nor alike what is.
    imitable = [row for row in rows if row.chain and row.answer and row not in held]
    imitable = [
        row for row in imitable if not any(r.row == row.row and r.file == files[row.source].name for r in refused)
    ]
    to_validate = set(validation)
    chosen: dict[Split, list[MedicalRow]] = {
        "train": [row for row in imitable if row not in to_validate],
        "val": [row for row in imitable if row in to_validate],
    }
    for split, some in chosen.items():
        outputs += _write_sft(out, split, [to_sample(r, tenant, split, with_answer=True) for r in some], tenant)

    evaluation = {}
    for name, source in (("dev", "dev"), ("test", "test"), ("gold", "gold"), ("red", "red_team")):
        samples = [to_sample(row, tenant, "test", with_answer=True) for row in held if row.source == source]
        evaluation[name] = len(samples)
        outputs.append(out / f"eval_{name}.jsonl")
        write_atomically(outputs[-1], (sample.to_json() for sample in samples))

    gold = [row for row in rows if row.source == "gold"]
    facts = Facts(
        tenant=tenant.tenant_id,
        files={p.name: (sum(row.source == s for row in rows), file_sha256(p)) for s, p in files.items()},
        draw=draw,
        validation=len(validation),
        evaluation=evaluation,
        sft=len(imitable),
        without_chain=len(gold) - sum(bool(row.chain and row.answer) for row in gold),
        refused=refused,
        share=options.high_risk_share,
        seed=options.seed,
        masked=", ".join(tenant.deidentify.kinds) or "nothing",
    )
    write_atomically(out / CARD_FILE, [data_card(facts)])
    lines = (json.dumps(vars(one), ensure_ascii=False) for one in sorted(refused, key=lambda r: (r.file, r.row)))
    write_atomically(out / QUARANTINE_FILE, lines)
    header = {
        "dataset": "medical_rl",
        "tenant": tenant.tenant_id,
        "training_prompts": len(training),
        "high_risk_share": draw.high_risk_share,
        "evaluation": evaluation,
        "sft_samples": facts.sft,
    }
    write_manifest(out / MANIFEST_FILE, request, outputs, header)
    return facts


def _write_rl(path: Path, samples: Iterable[Sample], tenant: TenantSettings) -> None:
    with writing_parquet(path, _SCHEMA) as write_row:
        for index, sample in enumerate(samples):
            write_row(
                {
                    "data_source": f"{tenant.tenant_id}_medical",
                    "prompt": build_messages(sample, tenant.system_prompt),
                    "ability": "medical",
                    "reward_model": {"style": "rule", "ground_truth": ""},
                    "extra_info": sample.to_extra_info(index),
                }
            )


def _write_sft(out: Path, split: str, samples: Sequence[Sample], tenant: TenantSettings) -> list[Path]:
    parquet, lines = out / f"sft_{split}.parquet", out / f"sft_{split}.jsonl"
    with writing_parquet(parquet, _SFT_SCHEMA) as write_row, writing_lines(lines) as write_line:
        for sample in samples:
            messages = build_sft_messages(sample, tenant.system_prompt)
            write_row({"messages": messages})
            write_line(json.dumps({"messages": messages, "metadata": sample.metadata.model_dump()}, ensure_ascii=False))
    return [parquet, lines]


def _request(options: MedicalOptions, files: dict[Source, Path], tenant: TenantSettings) -> dict[str, Any]:
    for path in files.values():
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
    return {
        "inputs": {source: file_sha256(path) for source, path in files.items()},
        "tenant_sha256": settings_sha256(tenant),
        "code_sha256": code_sha256(),
        "prompts": options.prompts,
        "high_risk_share": options.high_risk_share,
        "held_out": options.held_out,
        "seed": options.seed,
    }


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_medical",
        description="Build RL prompts, SFT data and evaluation sets of a medical assistant.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gold", type=Path, required=True, metavar="FILE", help="questions with chain and answer")
    parser.add_argument("--red", type=Path, required=True, metavar="FILE", help="emergencies, medication, risk groups")
    parser.add_argument("--dev", type=Path, metavar="FILE")
    parser.add_argument("--test", type=Path, metavar="FILE", help="held out whole")
    parser.add_argument("--tenant", default="medical", help="name of a tenant, or its YAML file (default: medical)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prompts", type=int, default=2000, help="most training prompts (default: 2000)")
    parser.add_argument("--high-risk-share", type=float, default=0.4, help="least share in [0, 1) (default: 0.4)")
    parser.add_argument(
        "--held-out", type=float, default=0.3, help="share of gold, red and dev that is evaluated on (default: 0.3)"
    )
    parser.add_argument("--seed", type=int, default=0)
    build_medical(MedicalOptions(**vars(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
