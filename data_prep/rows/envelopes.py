"""The objects around what a service logs: in a line of a log, and in the headings of a flattened export."""

from __future__ import annotations

# Keys of the objects around what a service logs, as `same_key` reduces them: its own and those of log shippers.
_ASKED = (
    *("payload", "request", "req", "input", "inputs", "params", "args", "arguments", "body"),
    *("requestbody", "requestdata", "请求", "输入"),
)
_ANSWERED = (
    *("response", "resp", "result", "results", "output", "outputs", "choices", "answer", "return"),
    *("responsebody", "responsedata", "rewriteresult", "响应", "返回", "结果", "输出"),
)
_AROUND = (
    *("data", "message", "msg", "log", "line", "event", "record", "records", "extra", "fields", "detail", "details"),
    *("info", "value", "values", "jsonpayload", "source", "doc", "document", "json", "text", "content", "数据"),
)
# Where log shippers put a logger's whole line.
WORDED = frozenset(("message", "msg", "log", "line", "event", "record"))
ENVELOPES = frozenset((*_ASKED, *_ANSWERED, *_AROUND))
ANSWERED = frozenset(_ANSWERED)
CONTEXT = "context"  # an envelope too, of nothing but what precedes a query
# Where text that holds no JSON may be a query, a rewrite or a dialogue, and not just a logger's words.
TELLING = frozenset((*_ASKED, *_ANSWERED, "data", CONTEXT))
# Keys of `columns.ALIASES` that mean too much within an object.
VAGUE = ("summary", "id", "profile", "time")
# Under which a chat's turns are logged.
CHATS = ("messages", CONTEXT)
