"""Two machines of a Ray cluster in Linux network namespaces: own addresses, own shared memory, own /tmp/ray.

10.x.y.1 the host, where the test and its services are     10.x.y.2 the head     10.x.y.3 the worker
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

BIN = Path(sys.executable).parent
NODE_NAMES = ("head", "worker")
START_SECONDS = 120.0
# Ray declares a silent node dead after three of these.
HEALTH = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}


def unsupported() -> str:
    """Say why namespaces cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"probe{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "network namespaces need the program ip (Debian: iproute2)"
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()[:100]}"
    entered = subprocess.run(
        ["ip", "netns", "exec", name, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"mounts are not permitted here: {entered.stderr.strip()[:100]}" if entered.returncode else ""


class TwoNodes:
    """A bridge and two namespaces on it; `start` runs Ray in one of them, `cut` takes it off like a power cut."""

    def __init__(self, folder: Path):
        number = os.getpid() % 60_000
        self._folder, self._tag = folder, f"rw{number}"
        self._net = f"10.{200 + number // 250 % 50}.{number % 250}"
        self.host, self.head, self.worker = (f"{self._net}.{last}" for last in (1, 2, 3))
        self.dashboard = f"http://{self.head}:8265"
        # Ray takes orders from those alone who know its token; a node that joins must know it, too.
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> TwoNodes:
        _ip("link", "add", self._tag, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", self._tag)
        _ip("link", "set", self._tag, "up")
        for name, address in zip(NODE_NAMES, (self.head, self.worker), strict=True):
            inside, outside = self._space(name), self._cable(name)
            _ip("netns", "add", inside)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("link", "set", outside, "master", self._tag, "up")
            for command in (
                ("link", "set", "lo", "up"),
                ("addr", "add", f"{address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("route", "add", "default", "via", self.host),
            ):
                _ip("-n", inside, *command)
        return self

    def __exit__(self, *exc: object) -> None:
        for name in NODE_NAMES:
            self._kill(name)
            _ip("netns", "del", self._space(name))
        _ip("link", "del", self._tag)

    def start(self, name: str) -> None:
        """Start Ray on a node, with one logical GPU and a shared memory and /tmp/ray of its own."""
        _ip("link", "set", self._cable(name), "up")
        ray_folder = self._folder / f"ray_{name}_{time.monotonic_ns()}"
        ray_folder.mkdir(parents=True)
        mounts = f"mkdir -p /tmp/ray; mount --bind {ray_folder} /tmp/ray; mount -t tmpfs -o size=2g tmpfs /dev/shm"
        address = self.head if name == "head" else self.worker
        role = (
            ["--head", "--port=6379", "--dashboard-host=0.0.0.0"] if name == "head" else [f"--address={self.head}:6379"]
        )
        sizes = ["--num-gpus=1", "--num-cpus=16", f"--object-store-memory={256 << 20}", "--disable-usage-stats"]
        ray = [str(BIN / "ray"), "start", f"--node-ip-address={address}", *role, *sizes, "--block"]
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
        environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_worker_niceness": "0", **HEALTH, **self.token}
        environment |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        with (self._folder / f"{name}.log").open("a") as log:
            self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", self._space(name), "sh", "-ec", f'{mounts}; exec "$@"', "sh", *ray],
                env=environment, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_for(self, *addresses: str) -> None:
        """Wait until these nodes, and no others, belong to the cluster.

        Raises:
            TimeoutError: after `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        headers = {"Authorization": f"Bearer {self.token['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.dashboard}/nodes?view=summary", headers=headers)
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                nodes = json.load(answer)["data"]["summary"]
                if sorted(node["ip"] for node in nodes if node["raylet"].get("state") == "ALIVE") == sorted(addresses):
                    return
            time.sleep(0.2)
        raise TimeoutError(f"the cluster is not {addresses} after {START_SECONDS:.0f} s: {self._folder}")

    def cut(self, name: str) -> None:
        """Cut a node's cable, then kill all it runs: no peer hears a word of it."""
        _ip("link", "set", self._cable(name), "down")
        self._kill(name)

    def _kill(self, name: str) -> None:
        while pids := subprocess.run(
            ["ip", "netns", "pids", self._space(name)], capture_output=True, text=True, check=True
        ).stdout.split():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if name in self._processes:
                self._processes[name].wait()
            time.sleep(0.05)

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._tag}-{name}"[:15]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
