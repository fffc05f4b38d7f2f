"""A blind arena in the browser: two anonymous rewrites of a query with what each retrieves, a vote, then the names.

    python -m evaluation.demo --tenant fivedoctors --run outputs/evaluation \\
        --test outputs/data/fivedoctors/rl_test.jsonl --votes outputs/arena/votes.jsonl

Votes are appended as canary pairs (`reward.canary --pairs`) when the voter agrees. With `--batch` no page is served: a
workbook of queries becomes a workbook with one version's rewrites and hits.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from data_prep.baseline.asking import probe, with_options
from evaluation.arena.batch import rewrite_workbook
from evaluation.arena.rounds import VoteFile, retriever
from evaluation.arena.versions import Version, build_versions
from evaluation.texts import LANGUAGES, load_texts
from reward.records.commands import command
from reward.records.files import BadInput
from reward.records.sample import read_samples
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings, load_tenant

_MANUAL = """\
versions
  original                     the query itself
  baseline                     the tenant's baseline service, when it has one
  --run [NAME=]FOLDER          every system of an evaluation, as recorded in its rewrites.jsonl: NAME/SYSTEM
  --service NAME=URL           POST URL/api/rewrite_query
  --chat NAME=URL#MODEL        POST URL/chat/completions, with the prompt of training (vLLM, Ollama, a provider). A
                               model folder: `vllm serve FOLDER`, then its address here
  --chat-key NAME=VARIABLE     the environment variable with the API key of that --chat

examples
  vllm serve outputs/rl/fivedoctors/final --port 8100
  python -m evaluation.demo --tenant fivedoctors --chat rl=http://127.0.0.1:8100/v1#outputs/rl/fivedoctors/final
  python -m evaluation.demo --tenant fivedoctors --service new=http://10.0.0.7:7861 \\
      --batch queries.xlsx --version new --out rewrites.xlsx
"""

_NAMED = 20  # rows that are left out


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    given = load_tenant(args.tenant)
    tenant = given.model_copy(update={"rag": with_options(given.rag, {"url": args.rag_url})})
    versions = build_versions(tenant, args.run, args.service, args.chat, args.chat_key)
    if args.batch:
        return asyncio.run(_batch(args.batch, args.out, args.version, versions, tenant))
    samples = read_samples(args.test) if args.test else []
    votes = VoteFile(args.votes, tenant)
    try:
        from evaluation.arena.page import Arena, serve
    except ModuleNotFoundError as missing:
        raise BadInput(f"the page needs {missing.name}: pip install 'sales-rag-rewriter[demo]'") from None
    probe("RAG service", tenant.rag.url)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    client, texts = RagClient(tenant.rag, tenant.tenant_id), load_texts("demo", args.language)
    arena = Arena(tenant, versions, samples, client, votes, texts, seed)
    print(f"arena   http://{args.host}:{args.port}   versions: {', '.join(versions)}")
    print(f"votes   {votes.path} ({votes.count} so far)", flush=True)
    serve(arena, args.host, args.port)
    return 0


async def _batch(
    source: Path, out: Path | None, name: str | None, versions: Mapping[str, Version], tenant: TenantSettings
) -> int:
    if out is None or out.suffix != ".xlsx":
        raise BadInput("--batch needs --out FILE.xlsx")
    if name is None or name not in versions:
        raise BadInput(f"--version {name}: expected one of {', '.join(versions)}")
    client = RagClient(tenant.rag, tenant.tenant_id)
    try:
        counts = await rewrite_workbook(source, out, versions[name], retriever(client), tenant)
    finally:
        await client.aclose()
        for version in versions.values():
            await version.aclose()
    print(f"{counts.rows} rows, {counts.failed} failed, {counts.refused} could not be asked; wrote {out}")
    for line in counts.left_out[:_NAMED]:
        print(f"left out: {line}", file=sys.stderr)
    if counts.failed:
        print(f"the first failure: {counts.first_failure}", file=sys.stderr)
    return 0


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.demo",
        description="Compare rewriters blindly in the browser, or rewrite a workbook.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--rag-url", metavar="URL", help="retrieval service (default: the tenant's)")
    parser.add_argument("--run", action="append", default=[], metavar="[NAME=]FOLDER", help="repeatable")
    parser.add_argument("--service", action="append", default=[], metavar="NAME=URL", help="repeatable")
    parser.add_argument("--chat", action="append", default=[], metavar="NAME=URL#MODEL", help="repeatable")
    parser.add_argument("--chat-key", action="append", default=[], metavar="NAME=VARIABLE", help="repeatable")
    parser.add_argument("--test", type=Path, help="held-out samples (JSONL) to draw from")
    parser.add_argument("--votes", type=Path, default=Path("outputs/arena/votes.jsonl"), help="default: %(default)s")
    parser.add_argument("--language", choices=LANGUAGES, default="zh", help="of the page (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=7870, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="of draws and orders (default: drawn, and kept with every vote)")
    parser.add_argument("--batch", type=Path, metavar="FILE", help="rewrite the queries of this workbook instead")
    parser.add_argument("--version", help="with --batch: whose rewrites")
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --batch: the workbook to write (.xlsx)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
