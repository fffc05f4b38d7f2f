"""Serve a data folder over HTTP.

    python -m rag.serve --index DIR --port 8000
    python -m rag.manage_keys create --index DIR --tenant fivedoctors --scope manage

One process answers all tenants and knowledge bases of the folder; new ones can be made over HTTP (see /docs). Stop it
with Ctrl-C or SIGTERM: running requests are finished first. With QDRANT_URL the vectors are a Qdrant server's, and
several workers may serve.
"""

from __future__ import annotations

import argparse
import errno
import functools
import ipaddress
import logging
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import IngestError
from rag.service.app import create_app
from rag.service.request_head import RequestHeadLimits
from rag.service.request_log import log_requests
from rag.settings import ServiceSettings, read_settings

# After draining: connections that still hold an answered request.
CLOSE_SECONDS = 5


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
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
            settings = _settings(args)
            keys_wanted = _open_folder(args)
            make = functools.partial(_make_app, args.index, settings, keys_wanted, args.log == "json")
            app = make if args.workers > 1 else make()
        except (IngestError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        port = listener.getsockname()[1]
        access = "access keys" if keys_wanted else "no access keys"
        facts = f"loaded in {time.perf_counter() - started:.1f} s, {access}"
        print(f"serving on http://{args.host}:{port} ({facts})", flush=True)
        config = uvicorn.Config(
            app,
            http=RequestHeadLimits,
            factory=args.workers > 1,
            workers=args.workers,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        try:
            if args.workers > 1:
                with tempfile.TemporaryDirectory(prefix="rag-metrics-") as folder:
                    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
                    Multiprocess(config, [listener]).run()
            else:
                uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rag.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder, as rag.build_index --out made it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of rag.settings: models, tenants, limits")
    parser.add_argument("--rewriter_url", help="service asked for a rewrite when a request brings none")
    parser.add_argument("--rewriter_timeout", type=float, help="seconds before its answer is given up (default: 2)")
    parser.add_argument("--retriever", help="embedder: hashing (default), a model folder, or URL#model")
    parser.add_argument("--reranker", help="cross-encoder: a model folder, or URL#model (default: none)")
    parser.add_argument("--llm_url", help="OpenAI-compatible /v1 of the language model; key in LLM_API_KEY")
    parser.add_argument("--rewrite_model", metavar="MODEL", help="its name there")
    parser.add_argument("--top_k", type=int, help="candidates of each channel (default: 30)")
    parser.add_argument(
        "--auth", choices=("keys", "off"), help="whether callers need a key (default: keys once there is one)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes; more than 1 need QDRANT_URL")
    parser.add_argument("--log", choices=("json", "off"), default="json", help="a line a request, to stderr")
    return parser


def _settings(args: argparse.Namespace) -> ServiceSettings:
    """The settings file's, with the command line's written over them.

    Raises:
        IngestError: one of them cannot be used.
    """
    if (args.llm_url is None) != (args.rewrite_model is None):
        raise IngestError("--llm_url and --rewrite_model belong together")
    options = _given(args, "retriever", "reranker", "top_k")
    options["default"] = _given(args, "rewriter_url", "rewriter_timeout")
    if args.llm_url is not None:
        options["language_model"] = {"url": args.llm_url, "model": args.rewrite_model}
    return read_settings(args.settings, options)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _open_folder(args: argparse.Namespace) -> bool:
    """Whether callers need a key. Says what the folder holds.

    Raises:
        IngestError: it holds nothing to serve, or serving it like this would be open to everybody.
    """
    if args.workers > 1 and not os.environ.get("QDRANT_URL"):
        raise IngestError("--workers: an embedded index is one process's; set QDRANT_URL to a Qdrant server")
    if not args.index.is_dir():
        build = f"python -m rag.build_index --kb_dir … --out {args.index} builds one"
        raise IngestError(f"{args.index}: no index there ({build})")
    catalogue = Catalogue(args.index)
    try:
        keys_wanted = args.auth == "keys" or (args.auth is None and AccessKeys(catalogue).any())
        if not keys_wanted and args.auth is None and not _is_loopback(args.host):
            raise IngestError(
                f"--host {args.host}: anybody could use it: make a key (python -m rag.manage_keys create --index "
                f"{args.index} --tenant …), or say --auth off"
            )
        for kb in catalogue.knowledge_bases():
            print(f"{kb.tenant_id}/{kb.name}: {kb.passages} passages")
    finally:
        catalogue.close()
    return keys_wanted


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _make_app(folder: Path, settings: ServiceSettings, keys_wanted: bool, log: bool) -> FastAPI:
    """In each worker."""
    log_requests(log)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return create_app(folder, settings, keys_wanted)


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
