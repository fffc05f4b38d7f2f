"""A run over two machines, one of which loses its power: network namespaces, real Ray, verl's own trainer."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from tests.support import ROOT
from tests.support.asgi_server import AsgiServer
from tests.support.loopback_judge import LoopbackJudge
from tests.support.training import Setting, logged_steps
from tests.support.two_nodes import TwoNodes, unsupported

STEPS, SAVED_EVERY = 5, 2
VOTES = 3  # the baseline's rewrite is graded that often
SECONDS = 600.0


class CountingRelay:
    """The retrieval service at an address that both nodes reach; `asked` are the requests of rollouts."""

    def __init__(self, url: str, host: str):
        self.asked: list[str] = []
        app = FastAPI()

        @app.post("/api/chat/general_rag")
        async def general_rag(request: Request) -> Response:
            body = await request.json()
            # Preflight asks with the query itself.
            if body.get("rewritten_query") not in (None, "", body["query"]):
                self.asked.append(json.dumps(body, sort_keys=True))
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                answer = await client.post(f"{url}/api/chat/general_rag", json=body)
            return Response(answer.content, answer.status_code, media_type="application/json")

        self._server = AsgiServer(app, host=host)
        self.url, self.close = self._server.url, self._server.close


def submit(
    nodes: TwoNodes, setting: Setting, output: Path, relay: CountingRelay, judge: LoopbackJudge
) -> subprocess.Popen:
    """Start `recipes/submit.sh` on the host, whose log goes to `submit.log`."""
    command = [
        *("bash", "recipes/submit.sh", "--address", nodes.dashboard),
        *("grpo", "tenant=fivedoctors", "machine=cpu", "model=tiny"),
        "recipe.machine.nodes=2",
        "recipe.machine.reward_engine=ray",
        f"recipe.data_dir={setting.folder / 'prepared'}",
        f"recipe.pretrained={setting.folder / 'tiny'}",
        f"recipe.start_from={setting.folder / 'tiny'}",
        f"recipe.output_dir={output}",
        f"rewriter.tenant.rag.url={relay.url}",
        "judge=self_hosted",
        f"rewriter.judge.base_url={judge.url}",
        "rewriter.reward.gates=[empty]",
        "recipe.rl.prompts_per_step=2",
        "recipe.rl.prompts_per_update=2",
        "recipe.rl.micro_batch=8",
        "recipe.rl.max_new_tokens=8",
        f"trainer.total_training_steps={STEPS}",
        f"trainer.save_freq={SAVED_EVERY}",
        "trainer.logger=[console,file]",
    ]
    # By their names the nodes are 127.0.0.1, as this host is: gloo takes the interface.
    environment = {**os.environ, **nodes.token, "GLOO_SOCKET_IFNAME": "eth0"}
    with (output.parent / "submit.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def file_log(output: Path) -> list[int]:
    lines = [line for path in sorted((output / "logs/metrics").iterdir()) for line in path.read_text().splitlines()]
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.slow
def test_a_node_that_loses_power_costs_no_more_than_the_steps_since_the_last_checkpoint(tmp_path):
    if reason := unsupported():
        pytest.skip(reason)
    setting, output = Setting(tmp_path, "fivedoctors"), tmp_path / "run"
    with TwoNodes(tmp_path / "nodes") as nodes:
        relay = CountingRelay(setting.service.url, nodes.host)
        judge = LoopbackJudge(grade=lambda rewrite: 2 + zlib.crc32(rewrite.encode()) % 4, host=nodes.host)
        try:
            nodes.start("head")
            nodes.wait_for(nodes.head)
            nodes.start("worker")
            nodes.wait_for(nodes.head, nodes.worker)
            # The worker goes in the step after the first checkpoint.
            run = submit(nodes, setting, output, relay, judge)
            deadline = time.monotonic() + SECONDS
            while not (output / "reward_metrics.jsonl").is_file() or logged_steps(output)[-1]["step"] <= SAVED_EVERY:
                assert run.poll() is None and time.monotonic() < deadline, log_end(tmp_path)
                time.sleep(0.05)
            nodes.cut("worker")
            assert run.wait(SECONDS) == 1, log_end(tmp_path)
            before = [row["step"] for row in logged_steps(output)]
            saved = int((output / "latest_checkpointed_iteration.txt").read_text())
            asked, graded = len(relay.asked), len(judge.requests)

            nodes.start("worker")
            nodes.wait_for(nodes.head, nodes.worker)
            assert submit(nodes, setting, output, relay, judge).wait(SECONDS) == 0, log_end(tmp_path)
        finally:
            relay.close()
            judge.close()
            setting.service.kill()

    # Both machines had a rank, and what was saved has gone on.
    assert {path.name for path in (output / f"global_step_{saved}" / "actor").glob("model_*")} == {
        f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)
    }
    assert saved >= SAVED_EVERY and max(before) - saved <= SAVED_EVERY
    assert [row["step"] for row in logged_steps(output)][len(before) :] == list(range(saved + 1, STEPS + 1))
    assert file_log(output) == list(range(1, STEPS + 1))
    assert (output / "final" / "config.json").is_file()
    # The second start asked for what was new, and for nothing again.
    assert 0 < asked < len(relay.asked) and 0 < graded < len(judge.requests)
    assert max(Counter(relay.asked).values()) == 1
    assert max(Counter(json.dumps(request["messages"]) for request in judge.requests).values()) <= VOTES
    with sqlite3.connect(output / "ledger.sqlite") as ledger:
        answered = ledger.execute("SELECT count(*), count(DISTINCT key) FROM calls WHERE status = 'ok'").fetchone()
    assert answered[0] == answered[1] > 0


def log_end(folder: Path) -> str:
    return (folder / "submit.log").read_text()[-3000:]
