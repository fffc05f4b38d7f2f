"""A real OpenAI-compatible server on loopback whose verdicts are known, with injected faults."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from reward.judge.protocol import DELIMITERS
from tests.support.asgi_server import AsgiServer

GOOD, FAIR, BAD = "鱼油 用法用量 每日剂量", "鱼油 用法用量", "鱼油 价格优惠"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}


def grade(rewrite: str) -> int:
    return 5 if rewrite == GOOD else 3 if rewrite == FAIR else 1


def verdict(rewrite: str, grade: Callable[[str], int] = grade) -> dict:
    grades = dict.fromkeys(("改写质量", "领域适配", "意图保持", "可检索性"), grade(rewrite))
    return {"评分理由": f"评「{rewrite[:20]}」", **grades}


def keeping_facts(value: Any) -> Any:
    """The same verdicts, each with the yes that prompt v2 asks for."""
    if not isinstance(value, dict):
        return value
    inner = {key: keeping_facts(one) for key, one in value.items()}
    return {**inner, "事实一致": "是"} if "意图保持" in inner else inner


class LoopbackJudge:
    """Reads the first JSON object after the opening delimiter and grades it; `faults` holds what comes next instead."""

    def __init__(self, grade: Callable[[str], int] = grade, host: str = "127.0.0.1"):
        self.grade = grade
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.faults: list[str] = []
        self.prefers_first = False
        self.usage: dict = USAGE
        self.delay = 0.0
        self.under_way = self.most_under_way = 0
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request):
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                fault = self.faults.pop(0) if self.faults else ""
                await asyncio.sleep(30 if fault == "slow" else self.delay)
                return self.answer(body, fault)
            finally:
                self.under_way -= 1

        self._server = AsgiServer(app, host=host, log_level="critical", timeout_graceful_shutdown=0)
        self.url = f"{self._server.url}/v1"

    def data(self, number: int = -1) -> dict:
        user = self.requests[number]["messages"][1]["content"]
        return json.JSONDecoder().raw_decode(user.split(DELIMITERS[0])[1].lstrip())[0]

    def answer(self, body: dict, fault: str):
        data = self.data(self.requests.index(body))
        if fault.isdigit():
            headers = {"Retry-After": "0.2"} if fault == "429" else {}
            return Response(json.dumps({"error": {"message": "no"}}), int(fault), headers, "application/json")
        raw = {
            "html": Response("<html>busy</html>", media_type="text/html"),
            "empty body": Response(b"", media_type="application/json"),
            "broken json": Response(b'{"choices": [', media_type="application/json"),
            "gbk": Response(
                json.dumps({"choices": "鱼"}, ensure_ascii=False).encode("gbk"), media_type="application/json"
            ),
            "array": Response(b"[]", media_type="application/json"),
            "huge": Response(b'{"choices": "' + b"x" * 10_000_000 + b'"}', media_type="application/json"),
            "redirect": Response(status_code=307, headers={"Location": self.url + "/elsewhere"}),
        }
        if fault in raw:
            return raw[fault]
        verdicts = self.verdicts(data)
        if "事实一致" in body["messages"][0]["content"]:
            verdicts = keeping_facts(verdicts)
        message = {"role": "assistant", "content": json.dumps(verdicts, ensure_ascii=False)}
        finish = "stop"
        if fault == "empty verdict":
            message["content"], finish = "", "length"
        elif fault == "cut off":
            message["content"], finish = message["content"][:30], "length"
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I can't assist with that"}
        elif fault == "refusal text":
            message["content"] = "抱歉，我无法评价。"
        elif fault == "out of range":
            message["content"] = message["content"].replace(": 1", ": 6").replace(": 3", ": 6").replace(": 5", ": 6")
        elif fault == "nan":
            message["content"] = (
                message["content"].replace(": 5", ": NaN").replace(": 3", ": NaN").replace(": 1", ": NaN")
            )
        elif fault == "text around":
            message["content"] = "评分如下：" + message["content"]
        elif fault == "forgets one":
            verdicts = self.verdicts(data)["评分"]
            message["content"] = json.dumps({"评分": dict(list(verdicts.items())[:-1])})
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def verdicts(self, data: dict) -> dict:
        if "候选" in data:
            return {"评分": {row["编号"]: verdict(row["改写"], self.grade) for row in data["候选"]}}
        if "A" in data:
            a, b = self.grade(data["A"]), self.grade(data["B"])
            better = "A" if self.prefers_first or a > b else "B" if b > a else "平"
            return {"理由": "比较", "A": {"意图保持": a}, "B": {"意图保持": b}, "更好": better}
        return verdict(data["改写"], self.grade)

    def close(self):
        self._server.close()
