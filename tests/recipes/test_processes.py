"""One launcher at a time in an output folder, and no process that outlives it."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from recipes.processes import hold
from reward.records.files import BadInput

# A launcher whose trainer has a worker in a session of its own, as torchrun's are.
LAUNCHER = """
import os, subprocess, sys, threading
from pathlib import Path
from recipes.processes import adopt_orphans, end_descendants, hold, run_group
folder = Path(sys.argv[1])
trainer = '''
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(str(worker.pid))
time.sleep(600)
'''
with hold(folder) as claim:
    adopt_orphans()
    command = [sys.executable, "-c", trainer, str(folder / "worker")]
    try:
        code = run_group(command, dict(os.environ), threading.Event(), (claim.fileno(),))
    finally:
        end_descendants()
    sys.exit(code)
"""


@pytest.fixture
def launcher(tmp_path):
    """A launcher at work, its trainer and the trainer's worker."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    worker = tmp_path / "worker"
    while not worker.is_file() or not worker.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    (trainer,) = psutil.Process(process.pid).children()
    yield process, trainer, psutil.Process(int(worker.read_text()))
    process.kill()
    process.wait()


def is_gone(process: psutil.Process) -> bool:
    _, left = psutil.wait_procs([process], timeout=20)
    return not left or process.status() == psutil.STATUS_ZOMBIE


def test_a_killed_trainer_leaves_no_worker(launcher):
    process, trainer, worker = launcher
    trainer.kill()
    assert process.wait(timeout=30) == 128 + 9
    assert is_gone(worker)


def test_a_killed_launcher_leaves_no_trainer(launcher):
    process, trainer, _ = launcher
    process.kill()
    assert is_gone(trainer)


def test_an_output_folder_has_one_launcher_at_a_time(launcher, tmp_path):
    process, trainer, _ = launcher
    with pytest.raises(BadInput, match="a run is at work in"):
        hold(tmp_path)
    trainer.kill()
    process.wait(timeout=30)
    hold(tmp_path).close()


def test_a_folder_is_held_for_as_long_as_the_trainer_is_there(tmp_path):
    with hold(tmp_path) as claim:
        trainer = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(claim.fileno(),))
    with pytest.raises(BadInput, match="a run is at work in"):
        hold(tmp_path)
    trainer.communicate()
    hold(tmp_path).close()


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write in"):
        hold(tmp_path / "file" / "run")
    assert os.listdir(tmp_path) == ["file"]
