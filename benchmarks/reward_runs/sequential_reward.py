"""The calls that the other systems of the benchmark make, without a cache and one after the other.

For every rollout, one call after the other: the policy's rewrite retrieved, the baseline's retrieved, the policy's
judged, the baseline's judged, even when the same was asked before. `run_sequential_loop` takes a fresh event loop and
fresh connections for each sample; `compute_score` is asynchronous and keeps its connections open,
the best that verl's reward managers can be given. The sum at the end takes the place of the reward: its arithmetic
costs nothing in any system.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from benchmarks.reward_runs.traffic import Arrival
from reward.records.outcome import Verdict
from reward.records.sample import Sample

_RUBRIC = (
    "你是查询改写评委。请从改写质量、领域适配、意图保持、可检索性四个维度给下面的改写打 1 到 5 分，"
    '只输出 JSON：{"改写质量": 整数, "领域适配": 整数, "意图保持": 整数, "可检索性": 整数, "评分理由": "……"}'
)
_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


def run_sequential_loop(
    judge_url: str, rag_url: str, traffic: Sequence[Arrival], progress: Callable[[int], None]
) -> float:
    """Score `traffic` sample after sample; return the seconds that takes."""
    started = time.monotonic()
    for number, arrival in enumerate(traffic, start=1):
        asyncio.run(_score_alone(judge_url, rag_url, arrival))
        progress(number)
    return time.monotonic() - started


async def _score_alone(judge_url: str, rag_url: str, arrival: Arrival) -> float:
    async with aiohttp.ClientSession() as session:
        return await _score(session, arrival.sample, arrival.completion, judge_url, rag_url)


async def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any], judge_url: str, rag_url: str
) -> float:
    """Score one rollout by verl's contract, with one client for each event loop and no limits of its own."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        _sessions[loop] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    sample = Sample.from_extra_info(extra_info)
    return await _score(_sessions[loop], sample, solution_str, judge_url, rag_url)


async def _score(session: aiohttp.ClientSession, sample: Sample, rewrite: str, judge_url: str, rag_url: str) -> float:
    baseline = sample.candidates.baseline
    tops = [await _top1(session, sample, text, rag_url) for text in (rewrite, baseline)]
    grades = [await _grade(session, sample, text, judge_url) for text in (rewrite, baseline)]
    return (tops[0] - tops[1]) + (grades[0] - grades[1]) / 5


async def _top1(session: aiohttp.ClientSession, sample: Sample, rewrite: str, rag_url: str) -> float:
    body = {
        "query": sample.original_query,
        "tenant_id": sample.metadata.tenant_id,
        "kb_name": "default",
        "history": sample.context.history_context,
        "top_k": 5,
        "score_threshold": 0.5,
        "rewritten_query": rewrite,
    }
    answer = await _post(session, f"{rag_url}/api/chat/general_rag", body)
    return answer["data"]["recall"][0]["reranker_score"]


async def _grade(session: aiohttp.ClientSession, sample: Sample, rewrite: str, judge_url: str) -> float:
    question = f"原始查询：{sample.original_query}\n用户画像：{sample.context.user_profile}\n改写：{rewrite}"
    messages = [{"role": "system", "content": _RUBRIC}, {"role": "user", "content": question}]
    body = {"model": "bench", "messages": messages, "temperature": 0.1, "max_tokens": 500}
    answer = await _post(session, f"{judge_url}/v1/chat/completions", body)
    return Verdict.model_validate_json(answer["choices"][0]["message"]["content"]).overall


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with session.post(url, data=json.dumps(body), headers={"Content-Type": "application/json"}) as answer:
        answer.raise_for_status()
        return await answer.json()
