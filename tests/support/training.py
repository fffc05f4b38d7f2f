"""A tenant's training on a CPU, ready to start as a user starts it: data, a live retrieval service, a tiny model."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.support.commands import run_command, run_python, start_module
from tests.support.loopback_judge import LoopbackJudge
from tests.support.ports import free_port

ROWS = 64


def python(*arguments: str) -> None:
    result = run_python("-m", *arguments)
    assert result.returncode == 0, result.stderr[-2000:]


class Service:
    """The retrieval service of this repository, in a process that can be killed."""

    def __init__(self, index: Path):
        self._index, self._port = index, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = ["rag.serve", "--index", str(self._index), "--port", str(self._port)]
        self._process = start_module(*command, stdout=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=1)
                return
            except OSError:
                assert self._process.poll() is None, "the service ended at start-up"
                time.sleep(0.1)
        raise AssertionError("the service did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Setting:
    """Everything a run needs, for one tenant: data, service, tiny model."""

    def __init__(self, folder: Path, tenant: str):
        self.folder, self.tenant = folder, tenant
        data, prepared = folder / "data", folder / "prepared"
        python("examples.fivedoctors.generate_sample_data", "--out", str(data))
        python("rag.build_index", "--kb-dir", str(data), "--out", str(folder / "index"), "--tenant", tenant)
        rewrites = {
            row["query_id"]: row for row in map(json.loads, (data / "baseline_rewrites.jsonl").read_text().splitlines())
        }
        queries = [json.loads(line) for line in (data / "queries_train.jsonl").read_text().splitlines()[:ROWS]]
        export = [
            {
                "original_query": q["query"],
                "query_id": q["query_id"],
                "history_context": q["history_context"],
                "user_profile": q["user_profile"],
                "history_summary": q["history_summary"],
                "rewritten_query": rewrites[q["query_id"]]["rewritten_query"],
                "recall_results": "[]",
                "recall_count": 1,
                "top1_score": 0.9,
                "avg_top3_score": 0.9,
                "success": True,
            }
            for q in queries
        ]
        (folder / "export.jsonl").write_text("\n".join(json.dumps(row) for row in export))
        common = ["--input", str(folder / "export.jsonl"), "--tenant", tenant, "--out", str(prepared)]
        python("data_prep.build_sft", *common, "--no-augment")
        python("data_prep.build_rl", *common, "--qrels", str(data / "qrels.tsv"))
        texts = [str(data / "queries_train.jsonl"), str(data / "baseline_rewrites.jsonl")]
        tiny = str(folder / "tiny")
        python("examples.make_tiny_model", "--tenant", tenant, "--text", *texts, "--out", tiny, "--hidden", "64")
        self.service = Service(folder / "index")

    def command(self, recipe: str, *overrides: str) -> list[str]:
        return [
            "bash",
            f"recipes/{recipe}.sh",
            "machine=cpu",
            "model=tiny",
            f"recipe.data_dir={self.folder / 'prepared'}",
            f"recipe.pretrained={self.folder / 'tiny'}",
            f"rewriter.tenant.rag.url={self.service.url}",
            "rewriter.tenant.rag.backoff=[0.05,0.1]",
            *overrides,
        ]

    def train_rl(self, recipe: str, steps: int | str, *overrides: str) -> tuple[Path, subprocess.CompletedProcess]:
        output = self.folder / recipe
        overrides = (
            f"recipe.output_dir={output}",
            f"recipe.start_from={self.folder / 'tiny'}",
            f"trainer.total_training_steps={steps}",
            "recipe.rl.prompts_per_step=4",
            "recipe.rl.prompts_per_update=4",
            "recipe.rl.micro_batch=16",
            "recipe.rl.max_new_tokens=8",
            *overrides,
        )
        return output, run_command(*self.command(recipe, *overrides))


def logged_steps(output: Path) -> list[dict]:
    """Return the lines of a run's `reward_metrics.jsonl`."""
    return [json.loads(line) for line in (output / "reward_metrics.jsonl").read_text().splitlines()]


def judged_by(judge: LoopbackJudge) -> tuple[str, ...]:
    """Return the overrides by which `judge` grades every rewrite that is not empty."""
    return "judge=self_hosted", f"rewriter.judge.base_url={judge.url}", "rewriter.reward.gates=[empty]"
