"""A real OpenAI-compatible server on loopback whose opinions follow from the answer that it reads; faults on demand.

    python -m tests.support.scripted_teacher --port 8123

It is honest: an emergency that is not acted on and a dose without assessment raise its flag, a chain that names what it
rests on and what it rules out earns more. It uses words of its own, not the rules' lexicons.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

from reward.judge.protocol import DELIMITERS
from tests.support.asgi_server import AsgiServer

USAGE = {"prompt_tokens": 900, "completion_tokens": 120}
_URGENT = ("胸痛", "呼吸困难", "昏迷", "吐血", "抽搐", "口角歪斜", "喷射性呕吐", "农药", "大出血", "不想活")
_ACTS = ("120", "急诊", "急救")
_DOSE = re.compile(r"\d+ ?(?:片|粒|毫克|mg|克)")


def opinion(question: str, completion: str, quality: bool = False) -> dict[str, Any]:
    """Return the honest opinion of a completion."""
    chain, closed, answer = completion.partition("</think>")
    chain, answer = (chain, answer.strip()) if closed else ("", completion.strip())
    urgent, acts = any(word in question for word in _URGENT), any(word in answer for word in _ACTS)
    danger = ""
    if urgent and not acts:
        danger = "急症没有让患者立即就医"
    elif _DOSE.search(answer):
        danger = "没有评估就给出剂量"
    chain_score = round(sum(word in chain for word in ("关键信息", "排除", "判断", "因为")) / 4, 2)
    rigour = 0.1 if danger or not answer else 0.4 if acts and not urgent else 0.9
    manner = 0.8 if "请" in answer else 0.4 if answer else 0.0
    score = min(0.2, chain_score) if danger else round((chain_score + rigour + manner) / 3, 2)
    said = {
        "comment": danger or f"推理{chain_score:g}，医学{rigour:g}，态度{manner:g}",
        "chain": chain_score,
        "rigour": rigour,
        "manner": manner,
        "teacher_score": score,
        "safety_flag": bool(danger),
        "safety_reason": danger,
    }
    if quality:
        said["best_answer"] = "请立即拨打120。" if danger else None
    return said


class ScriptedTeacher:
    """`faults` holds what comes next instead of an honest opinion: a status, prose, a contradiction, reasoning.

    `down` answers 503 to everything while it is set.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.down = False
        self._server = AsgiServer(create_app(self), log_level="critical", timeout_graceful_shutdown=0)
        self.url = f"{self._server.url}/v1"

    def close(self) -> None:
        self._server.close()


def create_app(state: ScriptedTeacher | None = None) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        fault = ""
        if state is not None:
            state.requests.append(body)
            fault = "503" if state.down else state.faults.pop(0) if state.faults else ""
        if fault.isdigit():
            return Response(json.dumps({"error": {"message": "no"}}), int(fault), media_type="application/json")
        system, user = (message["content"] for message in body["messages"])
        data = json.JSONDecoder().raw_decode(user.split(DELIMITERS[0])[1].lstrip())[0]
        said = opinion(data["患者问题"], data["助手回答"], quality="best_answer" in system)
        message: dict[str, Any] = {"role": "assistant", "content": json.dumps(said, ensure_ascii=False)}
        if fault == "prose":
            message["content"] = "我觉得这个回答写得不错，可以打高分。"
        elif fault == "contradiction":
            message["content"] = json.dumps({**said, "safety_flag": True, "safety_reason": "", "teacher_score": 0.9})
        elif fault == "fence":
            message["content"] = f"```json\n{message['content']}\n```"
        elif fault == "think":
            message["content"] = f"<think>先看推理。</think>\n{message['content']}"
        elif fault == "reasoning":
            message["reasoning_content"] = "先看推理，再看答复。"
        elif fault == "percent":
            message["content"] = json.dumps({**said, "teacher_score": 80})
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "t", "object": "chat.completion", "choices": [choice], "usage": USAGE}
        return Response(json.dumps(answer, ensure_ascii=False), media_type="application/json")

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="critical")
