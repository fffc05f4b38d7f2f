"""Whether the processes that score are still there, on a Ray of this machine."""

import pytest

from tests.support.commands import run_python

KILLED_ACTORS = """
import os, signal, ray
from reward.engine_actor import ACTOR_NAME, are_alive

ray.init(num_cpus=4, include_dashboard=False)

@ray.remote(num_cpus=0)
class Worker:
    async def pid(self):
        return os.getpid()

worker = Worker.remote()
assert are_alive([worker], is_shared=False)
assert not are_alive([worker], is_shared=True)  # none has been started
engine = Worker.options(name=ACTOR_NAME).remote()
assert are_alive([worker], is_shared=True)
os.kill(ray.get(engine.pid.remote()), signal.SIGKILL)
assert not are_alive([worker], is_shared=True) and are_alive([worker], is_shared=False)
os.kill(ray.get(worker.pid.remote()), signal.SIGKILL)
assert not are_alive([worker], is_shared=False)
"""


@pytest.mark.full
def test_a_killed_worker_and_a_killed_engine_are_seen():
    ended = run_python("-c", KILLED_ACTORS, timeout=200)
    assert ended.returncode == 0, ended.stderr[-2000:]
