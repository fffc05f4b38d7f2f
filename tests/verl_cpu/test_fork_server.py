"""The fork server: what its trainer and its workers are, how they end, and who may ask for one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import ROOT
from verl_cpu import fork_worker
from verl_cpu.fork_server import PRELOADED
from verl_cpu.fork_worker import SERVER_VARIABLE, fork_workers

# A server that has imported less than a run's.
SERVE = "import sys; from verl_cpu.fork_server import main; raise SystemExit(main(sys.argv[1:], ('numpy', 'colorsys')))"
WORKER = """
import json, os, random, sys
before = "colorsys" in sys.modules
import numpy
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(),
    "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(),
    "environment": {name: os.environ.get(name) for name in ("ONLY_OURS", "OF_THE_SERVER")}, "main": __name__,
    "preloaded": before, "draws": [random.random(), numpy.random.random()],
    "descriptors": [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
}))
sys.exit(5)
"""
# Starts two workers, the second one as Ray does in a process group of its own, waits for what they write, and ends with
# the exit code given.
TRAINER = """
import json, os, pathlib, subprocess, sys, time
folder, code = pathlib.Path(sys.argv[1]), int(sys.argv[2])
environment = {**os.environ, "ONLY_OURS": "1"}
del environment["OF_THE_SERVER"]
for number in (1, 2):
    with (folder / f"worker{number}").open("w") as output:
        command = json.loads(sys.argv[3]) + [str(folder / "worker.py"), "--number", str(number)]
        group = None if number == 1 else 0
        subprocess.run(command, stdout=output, env=environment, cwd="/", check=True, process_group=group)
while not all((folder / f"worker{number}").read_text().endswith("\\n") for number in (1, 2)):
    time.sleep(0.01)
(folder / "trainer").write_text(json.dumps(
    {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "main": __name__}
))
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
SLEEPER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1], "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def worker_command() -> list[str]:
    return [sys.executable, "-I", "-S", fork_worker.__file__]


def serve(folder: Path, program: str, *arguments: str, **options) -> subprocess.Popen:
    (folder / "trainer_of_test.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "OF_THE_SERVER": "1"}
    command = [sys.executable, "-c", SERVE, "trainer_of_test", str(folder), *arguments]
    return subprocess.Popen(command, env=environment, cwd=ROOT, **options)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (3, 3), (-signal.SIGKILL, 128 + signal.SIGKILL)])
def test_the_trainer_and_its_workers_are_forks_and_its_exit_code_is_the_servers(tmp_path, code, seen):
    (tmp_path / "worker.py").write_text(WORKER)
    claim = os.open(tmp_path, os.O_RDONLY)
    server = serve(tmp_path, TRAINER, str(code), json.dumps(worker_command()), pass_fds=(claim,))
    os.close(claim)
    assert server.wait(timeout=60) == seen
    trainer = json.loads((tmp_path / "trainer").read_text())
    assert trainer["parent"] == server.pid and trainer["main"] == "__main__"
    workers = [json.loads((tmp_path / f"worker{number}").read_text()) for number in (1, 2)]
    for number, worker in enumerate(workers, start=1):
        assert worker["parent"] == server.pid and worker["preloaded"] and worker["main"] == "__main__"
        assert worker["arguments"] == [str(tmp_path / "worker.py"), "--number", str(number)]
        assert (worker["path"], worker["folder"]) == (str(tmp_path), "/")
        assert worker["environment"] == {"ONLY_OURS": "1", "OF_THE_SERVER": None}
        # The claim on the output folder is the trainer's alone.
        assert sorted(worker["descriptors"]) == ["0", "1", "2"]
    # Ray ends a worker's group with the worker: it must not be the server's.
    assert workers[0]["group"] == trainer["group"] == trainer["pid"]
    assert workers[1]["group"] == workers[1]["pid"]
    assert not set(workers[0]["draws"]) & set(workers[1]["draws"])


def await_pids(folder: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not (folder / "pids").is_file() or len((folder / "pids").read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [psutil.Process(int(pid)) for pid in (folder / "pids").read_text().split()]


def test_a_server_that_is_asked_to_end_ends_the_trainers_group_and_says_so(tmp_path):
    server = serve(tmp_path, SLEEPER)
    processes = await_pids(tmp_path)
    server.terminate()
    assert server.wait(timeout=60) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(processes, timeout=60)[1]


def test_a_trainer_ends_with_a_server_that_is_killed(tmp_path):
    server = serve(tmp_path, SLEEPER)
    trainer, child = await_pids(tmp_path)
    server.kill()
    server.wait()
    assert not psutil.wait_procs([trainer], timeout=60)[1]
    child.kill()


@pytest.mark.parametrize("server", [None, "no-such-server"])
def test_a_worker_without_a_server_runs_by_itself(tmp_path, server):
    (tmp_path / "worker.py").write_text(WORKER)
    environment = {**os.environ, "ONLY_OURS": "1", **({SERVER_VARIABLE: server} if server else {})}
    command = [*worker_command(), str(tmp_path / "worker.py"), "--number", "1"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 5, ended.stderr
    worker = json.loads(ended.stdout)
    assert worker["parent"] == os.getpid() and not worker["preloaded"]
    assert worker["arguments"] == [str(tmp_path / "worker.py"), "--number", "1"]


# Sends what is no request, then a request as another user.
STRANGER = """
import json, os, socket, sys
from verl_cpu.fork_worker import SERVER_VARIABLE

def refused(text):
    with socket.socket(socket.AF_UNIX) as server:
        server.connect("\\0" + os.environ[SERVER_VARIABLE])
        try:
            socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
            server.sendall(text)
            return not server.recv(1)
        except (BrokenPipeError, ConnectionResetError):
            return True

worker = {"arguments": ["/dev/null"], "environment": {}, "folder": "/", "group": 1, "open_files": [9, 9]}
child = os.fork()
if child == 0:
    os.setuid(65534)
    os._exit(0 if refused(json.dumps(worker).encode()) else 1)
by_stranger = os.waitpid(child, 0)[1] == 0
sys.exit(0 if by_stranger and refused(b"[]") and refused(b"{}") and not refused(json.dumps(worker).encode()) else 7)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_worker_and_the_server_goes_on(tmp_path):
    server = serve(tmp_path, STRANGER, stderr=subprocess.PIPE, text=True)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 0, said
    assert said.count("a request for a worker is refused") == 3 and "it comes from user 65534" in said


def test_ray_starts_its_workers_by_the_server_unless_the_run_names_an_executable():
    assert fork_workers(None)["py_executable"].split()[-1] == fork_worker.__file__
    assert fork_workers({"env_vars": {"A": "1"}})["env_vars"] == {"A": "1"}
    assert fork_workers({"py_executable": "mine"}) == {"py_executable": "mine"}


def test_what_is_imported_before_a_fork_loads_neither_ray_nor_verl_and_leaves_no_thread_behind():
    program = f"""
import importlib, os, sys
for name in {PRELOADED!r}:
    importlib.import_module(name)
threads = [open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")]
# The allocator of Arrow starts its thread again in a fork.
print([name for name in threads if name != "jemalloc_bg_thd"][1:], {{"ray", "verl"}} & set(sys.modules))
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1:] == ["[] set()"], ended.stdout + ended.stderr[-2000:]
