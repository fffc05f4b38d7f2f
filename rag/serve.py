"""Serve one or more indexes over HTTP.

    python -m rag.serve --index indexes/fivedoctors --index indexes/chengla --port 8000

Each index brings its own tenant and knowledge base name. One process answers all of them; an index may be open in
several processes at once. Stop it with Ctrl-C or SIGTERM: running requests are finished first.
"""

from __future__ import annotations

import argparse
import errno
import logging
import socket
import sys
import time
from pathlib import Path

import uvicorn

from rag.ingest import IngestError
from rag.rewriting import Rewriter
from rag.search import KnowledgeBase
from rag.service import create_app
from rag.tokenizer import load_dictionary

SHUTDOWN_SECONDS = 5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, action="append", required=True, help="folder of an index; repeatable")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--rewriter_url", help="service asked for a rewrite when a request brings none")
    parser.add_argument(
        "--rewriter_timeout", type=float, default=2.0, help="seconds before its answer is given up (default: 2)"
    )
    args = parser.parse_args(argv)
    try:
        # Bound before anything is loaded, and kept: the port cannot be lost in between.
        listener = _bind(args.host, args.port)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "is taken by another program (choose another with --port)" if taken else f"cannot be used: {error}"
        print(f"error: {args.host}:{args.port} {problem}", file=sys.stderr)
        return 2
    with listener:
        started = time.perf_counter()
        try:
            knowledge_bases = [KnowledgeBase(index) for index in args.index]
            rewriter = Rewriter(args.rewriter_url, args.rewriter_timeout) if args.rewriter_url else None
            app = create_app(knowledge_bases, rewriter)
        except (IngestError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        load_dictionary()
        for knowledge_base in knowledge_bases:
            manifest = knowledge_base.manifest
            print(f"{manifest.tenant_id}/{manifest.kb_name}: {manifest.passages} passages")
        port = listener.getsockname()[1]
        print(f"serving on http://{args.host}:{port} (loaded in {time.perf_counter() - started:.1f} s)", flush=True)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return 0
    return 0


def _bind(host: str, port: int) -> socket.socket:
    """
    Raises:
        OSError: the address cannot be used.
        OverflowError: no such port number.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


if __name__ == "__main__":
    raise SystemExit(main())
