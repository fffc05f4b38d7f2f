"""Serve recorded rewrites by the contract of the deployed 32B rewriter: `POST /api/rewrite_query` .

`python -m examples.serve_recorded_baseline --recordings baseline_rewrites.jsonl --port 7861`

It takes the place of the company's own rewriter, so that the quick start runs the whole topology. It knows
the queries it was recorded on and answers 404 to any other: it never makes a rewrite up.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl


class RewriteRequest(BaseModel):
    query: str
    history: str = ""
    thought: str = ""
    tenant_id: str = ""
    user_profile: str = ""
    history_summary: str = ""


def create_app(recordings: Path) -> FastAPI:
    """Create an app that answers from a JSONL of `query`, `history_context`, `rewritten_query`.

    Raises:
        BadInput: the file is missing, not JSONL, or a row lacks a field.
    """
    rewrites: dict[tuple[str, str], str] = {}
    for row, record in read_jsonl(recordings):
        for field in ("query", "rewritten_query"):
            if not isinstance(record.get(field), str):
                raise BadInput(f"{recordings}: row {row}: {field} is missing")
        rewrites[record["query"], record.get("history_context", "")] = record["rewritten_query"]
    app = FastAPI(title="recorded baseline rewriter")

    @app.post("/api/rewrite_query")
    async def rewrite_query(request: RewriteRequest) -> dict[str, str]:
        rewrite = rewrites.get((request.query, request.history))
        if rewrite is None:
            raise HTTPException(404, "no rewrite was recorded for this query")
        return {"rewritten_query": rewrite}

    @app.get("/healthz")
    async def healthz() -> dict[str, int]:
        return {"recordings": len(rewrites)}

    return app


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.serve_recorded_baseline", description=__doc__)
    parser.add_argument("--recordings", required=True, type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7861)
    args = parser.parse_args(argv)
    app = create_app(args.recordings)
    # Say in one line that the port is taken; uvicorn would log a traceback.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((args.host, args.port))
        except OSError as error:
            raise BadInput(f"port {args.port} on {args.host}: {error.strerror}; choose another") from None
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
