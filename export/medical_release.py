"""Bundle a round of the medical assistant for release, unless its evaluation advises a rollback.

    python -m export.medical_release --root outputs/medical --round r3 --version v1.0-rl

writes `<root>/models/rl/<version>/`: policy, adapter, value head, recipe, reward_rules.md, teacher_judgements.jsonl,
the evaluation report, the sample report, and rl_pipeline.md, which says how it was made; `release.json` has the hash of
every file. Before that every file of the round is held to the hash that the round left. Exit code 2: a file is missing
or was changed, the version is there already, or a rollback is advised.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.medical.round_files import JUDGEMENTS_FILE, RULES_FILE
from export.medical.layout import RECIPE_FILE, ROUND_FILE, Round
from export.medical.pipeline_page import pipeline_page
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, write_atomically, write_json

PIPELINE_FILE, RELEASE_FILE, REPORT_FILE = "rl_pipeline.md", "release.json", "eval_report.md"


@command
def main(argv: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m export.medical_release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path("outputs/medical"), help="default: %(default)s")
    parser.add_argument("--round", required=True, help="the round to release")
    parser.add_argument("--version", default="v1.0-rl", help="name of the release (default: %(default)s)")
    args = parser.parse_args(argv)
    out = release(Round(args.root, args.round), args.version)
    print(f"released: {out}")
    return 0


def release(one: Round, version: str) -> Path:
    """Write the bundle and return its folder, which appears whole or not at all.

    Raises:
        BadInput: a file of the round is missing or was changed, the version is there already, or a rollback is advised.
    """
    if not re.fullmatch(r"[\w.-]+", version):
        raise BadInput(f"--version {version!r}: expected letters, digits, dots and hyphens")
    out = one.root / "models" / "rl" / version
    if out.exists():
        raise BadInput(f"{out}: is there already; choose another --version")
    record = _checked(one)
    if record["rollback"]:
        raise BadInput(f"round {one.name}: a rollback to SFT is advised, nothing is released: {record['reason']}")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(one.model / "policy", partial / "policy")
    if (one.model / "adapter").is_dir():
        shutil.copytree(one.model / "adapter", partial / "adapter")
    files = {
        one.model / RECIPE_FILE: RECIPE_FILE,
        one.model / ROUND_FILE: ROUND_FILE,
        one.model / RULES_FILE: RULES_FILE,
        one.data / JUDGEMENTS_FILE: JUDGEMENTS_FILE,
        one.report: REPORT_FILE,
        one.samples.with_suffix(".md"): one.samples.with_suffix(".md").name,
    }
    if (head := one.model / "value_head.safetensors").is_file():
        files[head] = head.name
    for source, name in files.items():
        shutil.copyfile(source, partial / name)
    write_atomically(partial / PIPELINE_FILE, [pipeline_page(one, version, record)])
    inside = sorted(path for path in partial.rglob("*") if path.is_file())
    hashes = {str(path.relative_to(partial)): file_sha256(path) for path in inside}
    write_json(partial / RELEASE_FILE, {"version": version, "round": one.name, "files": hashes})
    partial.rename(out)
    return out


def _checked(one: Round) -> Mapping[str, Any]:
    """Return the round's record, once every file that it names is what it was.

    Raises:
        BadInput: the round is not complete, or a file is missing or was changed.
    """
    path = one.model / ROUND_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files: Mapping[str, str] = record["files"]
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; complete the round with export.medical_round") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: not a round's record") from None
    # What all rounds share goes on, and a sample report is made again with what the teacher says later.
    moving = (one.data, one.samples.with_suffix(".md"), one.samples.with_suffix(".csv"))
    for name, digest in files.items():
        file = one.root / name
        if not file.is_file():
            raise BadInput(f"{file}: is missing; run export.medical_round --round {one.name} again")
        if not {file, file.parent} & set(moving) and file_sha256(file) != digest:
            raise BadInput(f"{file}: was changed since round {one.name} was made")
    return record


if __name__ == "__main__":
    raise SystemExit(main())
