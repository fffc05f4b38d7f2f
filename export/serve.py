"""Serve rewrites where the deployed 32B did: `POST /api/rewrite_query`, the same contract, on the same port.

    bash export/serve.sh --tenant fivedoctors --model outputs/rl/fivedoctors/final
    bash export/serve.sh --tenant fivedoctors --registry outputs/registry      # the champion, swapped when it changes
    bash export/serve.sh --settings serving.yaml                               # tenants, A/B, shadow, interleaving

vLLM runs as a child process of this one. An answer that does not come in time is the original query, and the header
X-Rewrite-Failure says why. Stop it with Ctrl-C or SIGTERM: running requests are finished first.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from pydantic import ValidationError

from export.serving.app import create_app
from export.serving.backend import Launch, vllm_command
from export.serving.service import load_tenants
from export.serving.settings import ServingSettings, read_settings
from guard.web.json_log import log_json
from reward.records.commands import command
from reward.records.files import BadInput, first_problem

KEY_VARIABLE = "REWRITER_API_KEY"
CLOSE_SECONDS = 5  # after draining: connections that still hold an answered request
FAILED = 1


@dataclass(frozen=True)
class Options:
    """The command line; `settings`, or a tenant and one of `model` and `registry`."""

    settings: Path | None
    tenant: str | None
    model: Path | None
    registry: Path | None
    log: Path | None
    host: str
    port: int
    auth: str
    allowed_host: list[str]


@command
def main(argv: list[str] | None = None, *, launch: Launch = vllm_command) -> int:
    """Serve until a signal comes: exit code 0; 1: a model server does not start; 2: bad input."""
    options = Options(**vars(_parser().parse_args(argv)))
    settings, api_key = _settings(options), _api_key(options)
    load_tenants(settings)  # what is wrong with them is said before anything starts
    log_json(logging.getLogger("export.serving"), logging.INFO)
    with _bind(options.host, options.port) as listener:
        problems: list[str] = []
        url = f"http://{options.host}:{listener.getsockname()[1]}"
        app = create_app(
            settings,
            api_key=api_key,
            allowed_hosts=[*options.allowed_host, *_own_names(options.host)],
            ready=lambda: print(f"serving {', '.join(settings.tenants)} on {url}", flush=True),
            failed=problems.append,
            stopping=lambda: server.should_exit,
            launch=launch,
        )
        print("starting the models …", flush=True)
        config = uvicorn.Config(
            app, access_log=False, log_level="critical", lifespan="on", timeout_graceful_shutdown=CLOSE_SECONDS
        )
        server = uvicorn.Server(config)
        # When all is closed, uvicorn sends itself the signal that ended it.
        signal.signal(signal.SIGTERM, _end)
        with suppress(KeyboardInterrupt, SystemExit):
            server.run(sockets=[listener])
    if problems:
        print(f"error: {problems[0]}", file=sys.stderr)
        return FAILED
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML of export/serving/settings.py")
    parser.add_argument("--tenant", help="its name, or its YAML file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path, metavar="DIR", help="Hugging Face model folder")
    source.add_argument("--registry", type=Path, metavar="DIR", help="folder of <tenant>/champion.json")
    parser.add_argument("--log", type=Path, metavar="DIR", help="outcome log (default: outputs/serving)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7861, help="0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--auth", choices=("key", "off"), default="key", help=f"off: others may call without the key of {KEY_VARIABLE}"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that a service without a key answers to, beside localhost and this machine's; * for any",
    )
    return parser


def _settings(options: Options) -> ServingSettings:
    """Read the settings file, or make settings of a tenant and its model.

    Raises:
        BadInput: neither is given, or they cannot be used.
    """
    source = options.model or options.registry
    if options.settings is not None:
        if options.tenant or source:
            raise BadInput("--settings: names tenants and models itself; leave --tenant, --model and --registry out")
        settings = read_settings(options.settings)
    elif options.tenant is None or source is None:
        raise BadInput("give --tenant with --model or --registry, or --settings")
    else:
        tenant = Path(options.tenant) if options.tenant.endswith((".yaml", ".yml")) else None
        tenant_id = _tenant_id(tenant) if tenant else options.tenant
        rewriter = {"model": options.model, "registry": options.registry}
        served = {"tenant": tenant, "rewriters": {"model": rewriter}, "answer": "model"}
        try:
            settings = ServingSettings.model_validate({"tenants": {tenant_id: served}})
        except ValidationError as error:
            raise BadInput(first_problem(error)) from None
    return settings.model_copy(update={"log": options.log}) if options.log else settings


def _tenant_id(path: Path) -> str:
    from reward.settings.recipe import load_tenant

    return load_tenant(str(path)).tenant_id


def _api_key(options: Options) -> str:
    """Return the key that callers need, "" for none.

    Raises:
        BadInput: others could call without one and nobody has allowed it.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if options.auth == "off":
        return ""
    if not key and not _is_loopback(options.host):
        raise BadInput(f"--host {options.host}: anybody could use it: set {KEY_VARIABLE}, or say --auth off")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_names(host: str) -> list[str]:
    """Return this machine's names where others reach the service."""
    return [] if _is_loopback(host) else [host, socket.gethostname(), socket.getfqdn()]


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before the models load; callers are refused until the server listens.

    Raises:
        BadInput: the address is taken or cannot be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise BadInput(f"{host}:{port} cannot be used: {getattr(error, 'strerror', None) or error}") from None
    return listener


if __name__ == "__main__":
    raise SystemExit(main())
