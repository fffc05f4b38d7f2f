"""A run on several nodes: what its recipe must say, and a look at every node of the Ray cluster it joins."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yarl
from omegaconf import DictConfig, OmegaConf

from recipes.checks.cards import Card, card_findings, read_cards
from recipes.checks.finding import Finding, bad, ok, warning
from recipes.checks.machine import (
    host_findings,
    host_memory,
    locked_memory_findings,
    shared_memory_findings,
    version_findings,
)
from recipes.run_record import installed_versions
from reward.records.files import BadInput
from reward.settings.recipe import RewriterSettings

SUBMIT = "bash recipes/submit.sh --address http://HEAD:8265 ..."
CONNECT_SECONDS = 3.0
LOOK_SECONDS = 15.0
# Where SQLite's write-ahead log is not safe for two hosts, and slow for one.
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.", "9p", "wekafs")


@dataclass(frozen=True)
class Look:
    """What was found on one node."""

    address: str
    gpus: int
    cards: list[Card] | str
    findings: list[Finding]


def check_nodes(config: DictConfig, settings: RewriterSettings | None) -> None:
    """Check what a recipe for several nodes has to say; one for a single node is left alone.

    Raises:
        BadInput: it is an SFT, its reward workers do not share one engine, a service has a loopback address,
            or a path is relative.
    """
    if config.trainer.nnodes == 1:
        return
    where = f"recipe.machine.nodes={config.trainer.nnodes}"
    if settings is None:
        raise BadInput(f"{where}: SFT runs on one node, where LoRA of a 32B fits; take machine=gpu8")
    if settings.ledger.shared != "ray":
        raise BadInput(
            f"{where}: needs rewriter.ledger.shared=ray (machine=gpu8x2 has it): one engine and ledger for all"
        )
    loopback = [f"{key}={url}" for key, url in service_urls(settings).items() if is_loopback(url)]
    if loopback:
        raise BadInput(f"{where}: 127.0.0.1 is another machine on every node: give the services' host in {loopback}")
    for key in ("data.train_files", "data.val_files", "trainer.default_local_dir", "rewriter.ledger.path"):
        path = Path(str(OmegaConf.select(config, key)))
        if not path.is_absolute():
            raise BadInput(
                f"{where}: {key}={path} must be absolute, on a file system of all nodes; {SUBMIT} makes it so"
            )


def service_urls(settings: RewriterSettings) -> dict[str, str]:
    """Addresses of the services that the reward calls, by their settings' keys."""
    urls = {"rewriter.tenant.rag.url": settings.tenant.rag.url}
    if settings.tenant.baseline.url is not None:
        urls["rewriter.tenant.baseline.url"] = settings.tenant.baseline.url
    if settings.judge is not None:
        urls["rewriter.judge.base_url"] = settings.judge.base_url
    return urls


def is_loopback(url: str) -> bool:
    """Say whether a URL names the machine that asks, whichever it is.

    >>> [is_loopback(f"http://{host}:8000") for host in ("localhost", "127.9.9.9", "[::1]", "0.0.0.0", "rag.internal")]
    [True, True, True, True, False]
    """
    host = (yarl.URL(url).host or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def look_here(config: DictConfig, host_needed: float | None) -> tuple[list[Card] | str, list[Finding]]:
    """Look at this machine's cards, versions, shared, locked and host memory (`host_needed` GiB, None: unknown)."""
    cards = read_cards()
    findings = [*card_findings(config, cards), *version_findings(installed_versions())]
    findings += [*shared_memory_findings(), *locked_memory_findings()]
    if host_needed is not None:
        findings += host_findings(host_needed, host_memory())
    return cards, findings


def look_at_nodes(config: DictConfig, settings: RewriterSettings, host_needed: float | None) -> list[Look]:
    """Look at every living node of the cluster that `RAY_ADDRESS` names, through a Ray task on each.

    Raises:
        BadInput: the cluster cannot be joined, or a node does not answer.
    """
    import ray  # there only for runs of several nodes: it takes seconds
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A folder of the same name is not yet the same folder.
    marker = Path(config.trainer.default_local_dir) / f".seen_by_all_{secrets.token_hex(4)}"
    marker.touch()
    paths = [str(marker), str(config.data.train_files), str(config.data.val_files)]
    if Path(str(config.model.path)).is_absolute():
        paths.append(str(config.model.path))
    urls = list(service_urls(settings).values())
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        nodes = [node for node in ray.nodes() if node["Alive"]]
        looks = []
        for node in nodes:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, scheduling_strategy=strategy)(look_at_node)
            gpus = int(node["Resources"].get("GPU", 0))
            looks.append(task.remote(config, node["NodeManagerAddress"], gpus, paths, urls, host_needed))
        return list(ray.get(looks, timeout=LOOK_SECONDS))
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInput(f"the Ray cluster cannot be asked about its nodes: {reason}") from None
    finally:
        ray.shutdown()
        marker.unlink(missing_ok=True)


def look_at_node(
    config: DictConfig, address: str, gpus: int, paths: Sequence[str], urls: Sequence[str], host_needed: float | None
) -> Look:
    """Look at the node that this runs on: its machine where it trains, the run's files, the services."""
    cards: list[Card] | str = "no GPU is asked for"
    findings: list[Finding] = []
    if config.recipe.machine.device == "cuda" and gpus:
        cards, findings = look_here(config, host_needed)
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        findings.append(bad("files", f"not there: {', '.join(missing)}; they must be on a file system of all nodes"))
    for url in urls:
        if reason := unreachable(url):
            findings.append(bad("services", f"{url} cannot be reached from here ({reason})"))
    return Look(address, gpus, cards, findings)


def unreachable(url: str) -> str:
    """Say why no connection to a URL's host and port can be made; empty when it can."""
    parsed = yarl.URL(url)
    try:
        with socket.create_connection((parsed.host or "", parsed.port or 80), timeout=CONNECT_SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def node_findings(config: DictConfig, looks: Sequence[Look]) -> list[Finding]:
    """Say what was found on the nodes: what all have in common once, the rest by address."""
    wanted, cards = config.trainer.nnodes, config.trainer.n_gpus_per_node
    able = [look for look in looks if look.gpus >= cards]
    names = ", ".join(f"{look.address} ({look.gpus} GPU)" for look in looks)
    text = f"{len(looks)} in the cluster: {names}"
    if len(able) < wanted:
        findings = [bad("nodes", f"{text}; the recipe takes {wanted} with {cards} GPU each")]
    else:
        findings = [ok("nodes", f"{text}; all see the run's files and reach its services")]
        if any(finding.subject in ("files", "services") for look in looks for finding in look.findings):
            findings = [warning("nodes", text)]
    shared: dict[Finding, list[str]] = {}
    for look in looks:
        for finding in look.findings:
            shared.setdefault(finding, []).append(look.address)
    for finding, addresses in shared.items():
        findings.append(Finding(finding.level, finding.subject, f"{', '.join(addresses)}: {finding.text}"))
    return findings


def ledger_findings(path: Path) -> list[Finding]:
    """Warn of a ledger on a network file system."""
    mounted = max(
        (part for part in psutil.disk_partitions(all=True) if path.absolute().is_relative_to(part.mountpoint)),
        key=lambda part: len(part.mountpoint),
        default=None,
    )
    if mounted is None or not mounted.fstype.lower().startswith(NETWORK_FILE_SYSTEMS):
        return []
    remedy = "better a disk of the head node, where its engine runs (rewriter.ledger.path)"
    return [warning("ledger", f"{path} is on {mounted.fstype}: a network file system loses SQLite's locks; {remedy}")]
