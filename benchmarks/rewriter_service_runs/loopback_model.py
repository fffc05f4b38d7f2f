"""A model server that answers at once: vLLM's routes, and a rewrite made of the query and the model folder's prefix.

    python -m benchmarks.rewriter_service_runs.loopback_model --model DIR --port 8001

`DIR/answers.json` holds `prefix`, put before the query, and in seconds `delay` and `start_seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from export.serving.backend import ModelServer

ANSWERS = "answers.json"
LABEL = "原始查询: "


def make_model(folder: Path, *, prefix: str, delay: float = 0.0, start_seconds: float = 0.0) -> Path:
    """Write a folder with the files of a Hugging Face model, which this server serves after `start_seconds`."""
    folder.mkdir(parents=True, exist_ok=True)
    files: Mapping[str, Any] = {
        "config.json": {"max_position_embeddings": 4096},
        "tokenizer_config.json": {},
        "run.json": {"max_new_tokens": 24},
        ANSWERS: {"prefix": prefix, "delay": delay, "start_seconds": start_seconds},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def launch(server: ModelServer, port: int) -> list[str]:
    """Return the command line that serves such a folder."""
    module = "benchmarks.rewriter_service_runs.loopback_model"
    command = [sys.executable, "-m", module, "--model", str(server.model.resolve()), "--port", str(port)]
    return [*command, "--served-model-name", server.served_model]


def create_app(model: Path, name: str) -> Starlette:
    answers = json.loads((model / ANSWERS).read_text(encoding="utf-8"))

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name}]})

    async def chat(http: Request) -> Response:
        body = await http.json()
        if body["model"] != name:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        if answers["delay"]:
            await asyncio.sleep(answers["delay"])
        asked = body["messages"][-1]["content"]
        text = answers["prefix"] + asked.partition(LABEL)[2].partition("\n")[0]
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({"id": "c", "object": "chat.completion", "choices": [choice], "model": body["model"]})

    return Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewriter_service_runs.loopback_model")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    args = parser.parse_args()
    time.sleep(json.loads((args.model / ANSWERS).read_text(encoding="utf-8"))["start_seconds"])
    uvicorn.run(create_app(args.model, args.served_model_name), port=args.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
