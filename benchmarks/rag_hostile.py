"""Does one tenant of a service stall another? One attacks with its own key, the other asks at a steady pace.

    python -m benchmarks.rag_hostile [--minutes 10] [--shapes NAME ...] [--passages 2000] [--seed 0]

`rag.serve` runs in a process of its own on this machine, and so does the attacker, which gives way to both: in real
life it computes elsewhere. The well-behaved tenant searches 20 times a second, clicks twice and sends a small document
every two seconds; a request is timed from when it was due. Its quiet values come first, in the same run, for a tenth of
the time; then the attacker has each hostile shape in turn. At the end the attacker keeps what connections it can, and
after a minute those that the service still holds are counted.

The last line is JSON. `victim_p99_ratio`: p99 of searches under attack, all shapes together, by their quiet p99.
`by_shape`: p99 in milliseconds and its ratio, errors, and requests that the attacker made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console

from benchmarks.hostile_runs.victim import KINDS, TENANT, Timings, Victim
from benchmarks.rag_load_runs.service import Server, serving
from benchmarks.rag_load_runs.texts import SyntheticText
from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import Document, Passage
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import DEFAULT_RETRIEVER, embedder_maker

ATTACKER = "attacker"
QUIET_SHARE = 0.1
WARM_SECONDS = 3.0
LINGER_SECONDS = 65.0  # a head may take 30, an answer that nobody takes 30


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rag_hostile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of both together (default %(default)s)")
    parser.add_argument("--shapes", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--passages", type=int, default=2000, help="of each tenant (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything generated (default %(default)s)")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or args.passages < 1:
        parser.error("--minutes, --passages: above 0")
    said = Console(stderr=True, width=120)
    texts = SyntheticText(args.seed)
    with TemporaryDirectory(prefix="rag_hostile_") as folder:
        said.print("building two knowledge bases")
        keys = _build(Path(folder), texts, args.passages)
        with serving(Path(folder), "--log", "off") as server:
            report = _attack(server, keys, texts, args, said)
    print(json.dumps(report, ensure_ascii=False))
    return 0


def _build(folder: Path, texts: SyntheticText, passages: int) -> dict[str, str]:
    """Fill the data folder; return each tenant's key."""
    catalogue = Catalogue(folder)
    indexer = Indexer(catalogue, open_engine(folder), embedder_maker(DEFAULT_RETRIEVER))
    keys = {}
    for tenant in (TENANT, ATTACKER):
        kb = catalogue.create_knowledge_base(tenant, "default")
        documents = [Document(str(n), (Passage(str(n), texts.passage(tenant, n)),)) for n in range(passages)]
        catalogue.put_documents(kb.id, documents)
        indexer.rebuild(kb, lambda share: None)
        keys[tenant] = AccessKeys(catalogue).create(tenant, "manage")
    indexer.close()
    catalogue.close()
    return keys


def _attack(
    server: Server, keys: dict[str, str], texts: SyntheticText, args: argparse.Namespace, said: Console
) -> dict[str, Any]:
    address = urlsplit(server.url)
    assert address.hostname and address.port
    victim = Victim(address.hostname, address.port, keys[TENANT], _questions(texts, args.passages))
    attacker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hostile_runs.attacker", server.url, keys[ATTACKER]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert attacker.stdin and attacker.stdout
    try:
        known = json.loads(attacker.stdout.readline())
        shapes = args.shapes or known
        if unknown := set(shapes) - set(known):
            raise SystemExit(f"error: --shapes: {', '.join(sorted(unknown))}: there are {', '.join(known)}")
        victim.start()
        time.sleep(WARM_SECONDS)
        victim.take()
        seconds = args.minutes * 60
        time.sleep(QUIET_SHARE * seconds)
        quiet = victim.take()
        said.print(f"quiet: p99 {', '.join(f'{kind} {quiet.p99(kind):.0f} ms' for kind in KINDS)}")
        under_attack: dict[str, Timings] = {}
        requests: dict[str, int] = {}
        for place, shape in enumerate(shapes, start=1):
            attacker.stdin.write(json.dumps([shape, (1 - QUIET_SHARE) * seconds / len(shapes)]) + "\n")
            attacker.stdin.flush()
            requests[shape] = int(attacker.stdout.readline())
            taken = under_attack[shape] = victim.take()
            ratio = taken.p99() / quiet.p99()
            said.print(
                f"{place}/{len(shapes)} {shape}: p99 {taken.p99():.0f} ms ({ratio:.1f} ×), {len(taken.errors)} errors, "
                f"{requests[shape]} requests"
            )
        attacker.stdin.close()
        said.print(f"waiting {LINGER_SECONDS:.0f} s for the connections that the attacker holds")
        time.sleep(LINGER_SECONDS)
        left = _connections(server) - len(("search", "search", "click", "document"))
        victim.stop()
    finally:
        attacker.kill()
        attacker.wait()
    return _report(quiet, under_attack, requests, left)


def _questions(texts: SyntheticText, passages: int) -> Iterator[str]:
    for number in count():
        yield texts.question(TENANT, number % passages, number // passages).text


def _connections(server: Server) -> int:
    """Count the connections that the service holds."""
    held = psutil.Process(server.pid).net_connections(kind="tcp")
    return sum(one.status not in (psutil.CONN_LISTEN, psutil.CONN_NONE) for one in held)


def _report(quiet: Timings, under_attack: dict[str, Timings], requests: dict[str, int], left: int) -> dict[str, Any]:
    together = _together(list(under_attack.values()))
    errors = [f"{shape}: {error}" for shape, timings in under_attack.items() for error in timings.errors]
    return {
        "victim_p99_ratio": round(together.p99() / quiet.p99(), 2),
        "victim_errors": len(errors) + len(quiet.errors),
        "connections_left": left,
        "quiet_p99_ms": {kind: round(quiet.p99(kind), 1) for kind in KINDS},
        "attacked_p99_ms": {kind: round(together.p99(kind), 1) for kind in KINDS},
        "load_average": round(psutil.getloadavg()[1], 1),
        "by_shape": {
            shape: {
                "p99_ms": round(timings.p99(), 1),
                "p99_ratio": round(timings.p99() / quiet.p99(), 2),
                "errors": len(timings.errors),
                "requests": requests[shape],
            }
            for shape, timings in under_attack.items()
        },
        "first_errors": errors[:20],
    }


def _together(timings: Sequence[Timings]) -> Timings:
    joined = Timings()
    for one in timings:
        for kind in KINDS:
            joined.milliseconds[kind] += one.milliseconds[kind]
    return joined


if __name__ == "__main__":
    raise SystemExit(main())
