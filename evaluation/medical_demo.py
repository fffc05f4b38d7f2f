"""Versions of the medical assistant side by side in the browser, or over a workbook; always below a safety notice.

    python -m evaluation.medical_demo --chat sft=http://127.0.0.1:8100/v1#sft --chat rl=http://127.0.0.1:8101/v1#rl
    python -m evaluation.medical_demo --chat rl=http://127.0.0.1:8101/v1#rl --batch questions.xlsx --out answers.xlsx

A model folder becomes such an address by `vllm serve FOLDER --port 8100`. With `--batch` no page is served.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from evaluation.arena.versions import parse_chats
from evaluation.medical.assistant import Assistant, answer_file
from evaluation.texts import LANGUAGES, load_texts
from reward.records.commands import command
from reward.records.files import BadInput
from reward.settings.recipe import TenantSettings, load_tenant


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    tenant = load_tenant(args.tenant)
    versions = {
        name: Assistant(name, url, model, tenant, key)
        for name, url, model, key in parse_chats(args.chat, args.chat_key)
    }
    if not versions:
        raise BadInput("no version: name one with --chat NAME=URL#MODEL")
    if args.batch:
        return asyncio.run(_batch(args.batch, args.out, versions, tenant))
    try:
        from evaluation.medical.assistant_page import serve
    except ModuleNotFoundError as missing:
        raise BadInput(f"the page needs {missing.name}: pip install 'sales-rag-rewriter[demo]'") from None
    print(f"assistant   http://{args.host}:{args.port}   versions: {', '.join(versions)}", flush=True)
    serve(versions, tenant, load_texts("medical", args.language), args.host, args.port)
    return 0


async def _batch(source: Path, out: Path | None, versions: Mapping[str, Assistant], tenant: TenantSettings) -> int:
    if out is None or out.suffix != ".xlsx":
        raise BadInput("--batch needs --out FILE.xlsx")
    try:
        failed = await answer_file(source, out, versions, tenant)
    finally:
        for version in versions.values():
            await version.aclose()
    print(f"wrote {out}: {', '.join(f'{name} {count} failed' for name, count in failed.items())}")
    for name, count in failed.items():
        if count:
            print(f"{name}: {count} questions have no answer", file=sys.stderr)
    return 0


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.medical_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tenant", default="medical", help="name of a tenant, or its YAML file (default: medical)")
    parser.add_argument("--chat", action="append", default=[], metavar="NAME=URL#MODEL", help="a version; repeatable")
    parser.add_argument(
        "--chat-key", action="append", default=[], metavar="NAME=VARIABLE", help="its API key; repeatable"
    )
    parser.add_argument("--language", choices=LANGUAGES, default="zh", help="of the page (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=7871, help="default: %(default)s")
    parser.add_argument("--batch", type=Path, metavar="FILE", help="answer the questions of this file instead")
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --batch: the workbook to write (.xlsx)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
