"""Give a tenant its own reranker while the service runs, and look at what each one gave the canary pairs.

    python -m rag.manage_rerankers set --index kb --tenant fivedoctors --reranker outputs/reranker/model
    python -m rag.manage_rerankers unset --index kb --tenant fivedoctors       # the settings' one again
    python -m rag.manage_rerankers list --index kb

`set` opens the model, scores ten fixed pairs (the canary) and keeps the scores with the model's id. A running service
loads the model beside the present one, scores the pairs again, and swaps only where the scores are those that were
kept. Otherwise it goes on as before, and /healthz, /metrics and the log say so. Weights of the fusion that were fitted
with another reranker do not hold for this one (`rag.fit_fusion --reranker`).
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import FILE
from rag.catalogue.tenant_rerankers import TenantReranker, TenantRerankers
from rag.command import command
from rag.documents.records import IngestError
from rag.models.reranker import open_reranker
from rag.models.reranker_canary import PAIRS, agreement, canary_scores, drift, misordered


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.manage_rerankers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    setting = commands.add_parser("set", help="give a tenant a reranker")
    setting.add_argument("--reranker", required=True, help="CrossEncoder folder, or [logits:]URL#model of /v1/rerank")
    unset = commands.add_parser("unset", help="go back to the settings' reranker")
    for one in (setting, unset):
        one.add_argument("--tenant", required=True)
    for one in (setting, unset, commands.add_parser("list", help="show every swap")):
        one.add_argument("--index", type=Path, required=True, help="data folder of the service")
    args = parser.parse_args(argv)
    if not (args.index / FILE).is_file():
        raise IngestError(f"{args.index}: holds no {FILE}")
    catalogue = Catalogue(args.index)
    try:
        kept = TenantRerankers(catalogue)
        if args.command == "list":
            for row in kept.history():
                print(f"{row.swap_id}\t{row.tenant_id}\t{row.set_at}\t{row.model_id or 'settings'}\t{row.address}")
            return 0
        if not catalogue.knowledge_bases(args.tenant):
            raise IngestError(f"{args.index}: no tenant {args.tenant}")
        before = kept.current(args.tenant)
        if args.command == "unset":
            kept.set(args.tenant, "", "", ())
            print(f"{args.tenant}: the settings' reranker")
            return 0
        # A service may run elsewhere than where this was typed.
        local = Path(args.reranker)
        address = str(local.resolve()) if local.is_dir() else args.reranker
        model_id, scores = asyncio.run(_check(address))
        kept.set(args.tenant, address, model_id, scores)
        print(f"{args.tenant}: {model_id}; {_compared(before, scores)}")
    finally:
        catalogue.close()
    return 0


async def _check(address: str) -> tuple[str, tuple[float, ...]]:
    reranker = open_reranker(address)
    try:
        return reranker.id, await canary_scores(reranker)
    finally:
        await reranker.aclose()


def _compared(before: TenantReranker | None, scores: tuple[float, ...]) -> str:
    wrong = f"{len(PAIRS) // 2 - misordered(scores)} of {len(PAIRS) // 2} canary answers above the other passage"
    if before is None or not before.canary:
        return wrong
    return (
        f"{wrong}; against {before.model_id}: largest change {drift(before.canary, scores):.3f}, "
        f"rank correlation {agreement(before.canary, scores):+.2f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
