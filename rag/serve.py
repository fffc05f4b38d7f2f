"""Serve a data folder over HTTP.

    python -m rag.serve --index DIR --port 8000
    python -m rag.manage_keys create --index DIR --tenant fivedoctors --scope manage

One process answers all tenants and knowledge bases of the folder; new ones can be made over HTTP (see /docs). Stop it
with Ctrl-C or SIGTERM: running requests are finished first. With QDRANT_URL the vectors are a Qdrant server's, and
several workers may serve.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import gc
import ipaddress
import logging
import os
import re
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import old_sqlite
from rag.command import command
from rag.documents.records import IngestError
from rag.service.app import create_app
from rag.service.request_head import RequestHeadLimits
from rag.service.request_log import log_requests
from rag.settings import HOST, ServiceSettings, model_options, read_settings

# After draining: connections that still hold an answered request.
CLOSE_SECONDS = 5
# A thread that computes lets the event loop go on after so many seconds; Python's own 5 ms are as long as a search.
SWITCH_SECONDS = 0.0001


@dataclass(frozen=True)
class Options:
    """The command line of the service; what is None is left to the settings file."""

    index: Path
    host: str
    port: int
    settings: Path | None
    rewriter_url: str | None
    rewriter_timeout: float | None
    retriever: str | None
    query_prompt: str | None
    passage_prompt: str | None
    reranker: str | None
    rerank_part: float | None
    llm_url: str | None
    rewrite_model: str | None
    top_k: int | None
    auth: Literal["keys", "off"] | None
    allowed_host: list[str] | None
    workers: int
    log: Literal["json", "off"]


@command
def main(argv: list[str] | None = None) -> int:
    """Serve until a signal comes: exit code 0; 2: the address, the settings or the folder cannot be used."""
    options = Options(**vars(_parser().parse_args(argv)))
    # Before torch is loaded: threads that spin while they wait make a cross-encoder ten times slower on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # The port is bound before anything is loaded, so that no other program takes it meanwhile.
    with _bind(options.host, options.port) as listener:
        started = time.perf_counter()
        settings = _settings(options)
        keys_wanted = _open_folder(options)
        make = functools.partial(
            _make_app, options.index, settings, keys_wanted, options.auth == "off", options.log == "json"
        )
        app = make if options.workers > 1 else make()
        access = "access keys" if keys_wanted else "no access keys"
        facts = f"loaded in {time.perf_counter() - started:.1f} s, {access}"
        if note := old_sqlite():
            print(f"note: {note}", flush=True)
        print(f"serving on http://{options.host}:{listener.getsockname()[1]} ({facts})", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(app, listener, options.workers)
    return 0


def _serve(app: FastAPI | Callable[[], FastAPI], listener: socket.socket, workers: int) -> None:
    """Answer requests until a signal comes; more than one worker takes a function that makes the app in each."""
    config = uvicorn.Config(
        app,
        http=RequestHeadLimits,
        factory=workers > 1,
        workers=workers,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    # The workers' counters meet in this folder: each answers /metrics for all.
    with tempfile.TemporaryDirectory(prefix="rag-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Multiprocess(config, [listener]).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rag.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="data folder, as rag.build_index --out made it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of rag.settings: models, tenants, limits")
    parser.add_argument(
        "--rewriter-url", "--rewriter_url", help="service that rewrites when a request brings no rewrite"
    )
    parser.add_argument(
        "--rewriter-timeout",
        "--rewriter_timeout",
        type=float,
        help="seconds before its answer is given up (default: 2)",
    )
    parser.add_argument(
        "--retriever",
        help="embedder: keyword (no vectors; default), hashing, a model's folder, or URL#model, with ?prompts=NAME",
    )
    parser.add_argument("--query-prompt", "--query_prompt", help="what the model wants before a query, if no preset")
    parser.add_argument("--passage-prompt", "--passage_prompt", help="and before a passage, as in rag.build_index")
    parser.add_argument("--reranker", help="cross-encoder: a model folder, or URL#model (default: none)")
    parser.add_argument(
        "--rerank-part",
        "--rerank_part",
        type=float,
        help="the cross-encoder's part of the order where none was fitted (default: 1); 0: it only scores the hits",
    )
    parser.add_argument("--llm-url", "--llm_url", help="OpenAI-compatible /v1 of a language model; key: LLM_API_KEY")
    parser.add_argument(
        "--rewrite-model",
        "--rewrite_model",
        metavar="MODEL",
        help="its name there, or at the endpoint of --settings' language_model",
    )
    parser.add_argument("--top-k", "--top_k", type=int, help="candidates of each channel (default: 30)")
    parser.add_argument(
        "--auth", choices=("keys", "off"), help="whether callers need a key (default: keys once there is one)"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="a name that a service without keys answers to, beside localhost and this machine's; * for any",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes; more than 1 need QDRANT_URL")
    parser.add_argument("--log", choices=("json", "off"), default="json", help="a line a request, to stderr")
    return parser


def _settings(options: Options) -> ServiceSettings:
    """Read the settings file and write the command line's values over it.

    Raises:
        IngestError: one of them cannot be used.
    """
    values = _given(options, "retriever", "query_prompt", "passage_prompt", "reranker", "rerank_part", "top_k")
    values["default"] = _given(options, "rewriter_url", "rewriter_timeout")
    values["language_model"] = model_options(options.llm_url, options.rewrite_model)
    settings = read_settings(options.settings, values)
    return settings.model_copy(update={"allowed_hosts": [*settings.allowed_hosts, *_hosts(options)]})


def _hosts(options: Options) -> list[str]:
    """Return the hosts of the command line and, where others reach the service, this machine's names and addresses."""
    for host in options.allowed_host or ():
        if not re.match(HOST, host):
            raise IngestError(f"--allowed-host {host}: a name, *.name, or * for any")
    own = [] if _is_loopback(options.host) else [options.host, socket.gethostname(), *_addresses()]
    return [f"[{host}]" if ":" in host else host for host in (*(options.allowed_host or ()), *own)]


def _addresses() -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return [
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in families
    ]


def _given(options: Options, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _open_folder(options: Options) -> bool:
    """Check and print what the folder holds; return whether callers need a key.

    Raises:
        IngestError: it holds nothing to serve, or serving it like this would be open to everybody.
    """
    if options.workers > 1 and not os.environ.get("QDRANT_URL"):
        raise IngestError("--workers: an embedded index is one process's; set QDRANT_URL to a Qdrant server")
    if not options.index.is_dir():
        build = f"python -m rag.build_index --kb-dir … --out {options.index} builds one"
        raise IngestError(f"{options.index}: no index there ({build})")
    catalogue = Catalogue(options.index)
    try:
        keys_wanted = options.auth == "keys" or (options.auth is None and AccessKeys(catalogue).any())
        if not keys_wanted and options.auth is None and not _is_loopback(options.host):
            raise IngestError(
                f"--host {options.host}: anybody could use it: make a key (python -m rag.manage_keys create --index "
                f"{options.index} --tenant …), or say --auth off"
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


def _make_app(
    folder: Path, settings: ServiceSettings, keys_wanted: bool, open_to_everybody: bool, log: bool
) -> FastAPI:
    """Make the app of one worker, and set its process up."""
    sys.setswitchinterval(SWITCH_SECONDS)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # a connection takes one
    log_requests(log)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = create_app(folder, settings, keys_wanted, open_to_everybody=open_to_everybody)
    gc.freeze()  # jieba's dictionary stays: a collection that visits it takes as long as a hundred searches
    return app


def _bind(host: str, port: int) -> socket.socket:
    """Listen at `host`:`port`.

    Raises:
        IngestError: the address is taken or cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "is taken by another program (choose another with --port)" if taken else f"cannot be used: {error}"
        raise IngestError(f"{host}:{port} {problem}") from None


if __name__ == "__main__":
    raise SystemExit(main())
