"""The columns of a row of the customer's data, the same for every kind of file, and their other names.

A row walks as part of an Arrow table of `ROWS`: a million log lines are a million rows, not a million objects.
"""

from __future__ import annotations

import pyarrow as pa

TEXTS = (
    "original_query",
    "user_profile",
    "history_summary",
    "history_context",
    "thought_unit",
    "rewritten_query",
    "recall_results",  # a JSON list of hits: content, score, reranker_score, doc_id
    "query_id",
    "timestamp",  # ISO 8601
    "model",
    "tenant_id",
    "error",
)
SCORES = ("top1_score", "avg_top3_score", "quality_score")  # None = not recorded

# Texts are "" where nothing was recorded. `row` is the line or sheet row, from 1, headings and blank ones counted.
# `remarks`: what of a usable row was passed over: "column: what (which)", e.g. "timestamp: not understood (昨天)".
# `refused`: why the row cannot be used ("field: problem"), "" for a usable one; a refused row still is a row.
ROWS = pa.schema(
    [
        ("file", pa.string()),
        ("sheet", pa.string()),
        ("row", pa.int64()),
        ("refused", pa.string()),
        ("source", pa.string()),  # production_log | test_set
        *((name, pa.string()) for name in TEXTS),
        *((name, pa.float64()) for name in SCORES),
        ("recall_count", pa.int64()),
        ("success", pa.bool_()),  # None = not recorded
        ("slices", pa.list_(pa.string())),
        ("remarks", pa.list_(pa.string())),
    ]
)

COLUMNS = (*TEXTS, *SCORES, "recall_count", "success", "slices")

# Heading (as `headings.heading_key` reduces it: also Traditional, upper case, with spaces or a *) → column.
ALIASES = {
    "query": "original_query",
    "question": "original_query",
    "user_query": "original_query",
    "原始查询": "original_query",
    "原始问题": "original_query",
    "原查询": "original_query",
    "用户提问": "original_query",
    "用户问题": "original_query",
    "用户查询": "original_query",
    "使用者查询": "original_query",
    "使用者问题": "original_query",
    "使用者提问": "original_query",
    "问题": "original_query",
    "查询": "original_query",
    "profile": "user_profile",
    "用户画像": "user_profile",
    "画像": "user_profile",
    "使用者画像": "user_profile",
    "summary": "history_summary",
    "历史摘要": "history_summary",
    "对话摘要": "history_summary",
    "rewrite": "rewritten_query",
    "rewrite_query": "rewritten_query",
    "query_rewrite": "rewritten_query",
    "rewritten": "rewritten_query",
    "rewritten_question": "rewritten_query",
    "rewrite_result": "rewritten_query",
    "改写": "rewritten_query",
    "重写查询": "rewritten_query",
    "改写查询": "rewritten_query",
    "改写结果": "rewritten_query",
    "改写后查询": "rewritten_query",
    "改写问题": "rewritten_query",
    "recall": "recall_results",
    "召回结果": "recall_results",
    "召回内容": "recall_results",
    "召回数量": "recall_count",
    "召回数": "recall_count",
    "top1分数": "top1_score",
    "top1得分": "top1_score",
    "首条分数": "top1_score",
    "前三平均分": "avg_top3_score",
    "top3平均分": "avg_top3_score",
    "质量分": "quality_score",
    "品质分": "quality_score",
    "综合得分": "quality_score",
    "是否成功": "success",
    "成功": "success",
    "history": "history_context",
    "chat_history": "history_context",
    "history_messages": "history_context",
    "conversation_history": "history_context",
    "聊天记录": "history_context",
    "对话记录": "history_context",
    "历史记录": "history_context",
    "历史消息": "history_context",
    "对话历史": "history_context",
    "历史对话": "history_context",
    "思考单元": "thought_unit",
    "id": "query_id",
    "编号": "query_id",
    "查询编号": "query_id",
    "时间": "timestamp",
    "时间戳": "timestamp",
    "时间戳记": "timestamp",
    "模型": "model",
    "租户": "tenant_id",
    "错误": "error",
    "失败原因": "error",
    "切片": "slices",
}

# Column → where a log line may hold it: the service nests under payload, response and data. The first found counts.
LOG_PATHS: dict[str, tuple[str, ...]] = {
    "original_query": ("payload.query", "data.query", "query", "original_query"),
    "rewritten_query": (
        "response.rewritten_query",
        "response.data.rewritten_query",
        "data.rewritten_query",
        "rewritten_query",
    ),
    "user_profile": (
        "response.user_profile",
        "response.data.user_profile",
        "data.user_profile",
        "payload.user_profile",
        "user_profile",
    ),
    "history_summary": (
        "response.history_summary",
        "response.data.history_summary",
        "data.history_summary",
        "payload.history_summary",
        "history_summary",
    ),
    "history_context": (
        "payload.history",
        "payload.history_context",
        "response.history_context",
        "response.data.history_context",
        "response.history",
        "data.history_context",
        "history_context",
        "history",
    ),
    "thought_unit": ("response.thought_unit", "payload.thought_unit", "data.thought_unit", "thought_unit"),
    "recall_results": ("response.recall", "response.data.recall", "data.recall", "recall_results", "recall"),
    "recall_count": ("recall_count",),
    "top1_score": ("top1_score",),
    "avg_top3_score": ("avg_top3_score",),
    "quality_score": ("quality_score",),
    "success": ("response.success", "success"),
    "timestamp": (
        "timestamp",
        "@timestamp",
        "payload.timestamp",
        "response.timestamp",
        "time",
        "created_at",
        "datetime",
        "log_time",
        "ts",
    ),
    "model": ("response.model", "model"),
    "tenant_id": ("payload.tenant_id", "tenant_id"),
    "query_id": ("query_id", "request_id"),
    "slices": ("slices",),
    "error": ("error",),
}
