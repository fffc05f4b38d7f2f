"""`/docs`: the HTTP API on one page without any script, so that nothing on it can reach the key that `/` keeps."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs_page(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()), headers={"Content-Security-Policy": _POLICY})


def _page(description: dict[str, Any]) -> str:
    info = description["info"]
    operations = [
        _operation(method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        '<link rel="stylesheet" href="/page/docs.css"></head>\n'
        f"<body><h1>{escape(info['title'])}</h1><p>{escape(info.get('summary', ''))}</p>"
        '<p>The whole description, with every field: <a href="/openapi.json">/openapi.json</a></p>\n'
        + "\n".join(operations)
        + "\n</body></html>\n"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(one['name'])}</code> ({escape(one['in'])}) {escape(one.get('description', ''))}</li>"
        for one in operation.get("parameters", [])
    )
    answers = "".join(
        f"<li><code>{escape(status)}</code> {escape(answer.get('description', ''))}</li>"
        for status, answer in operation.get("responses", {}).items()
    )
    bodies = [
        content["schema"]["$ref"].rpartition("/")[2]
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content.get("schema", {})
    ]
    body = f"<p>Body: <code>{escape(bodies[0])}</code></p>" if bodies else ""
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"
        f"<p>{escape(operation.get('description', ''))}</p>{body}<ul>{parameters}</ul><h3>Answers</h3>"
        f"<ul>{answers}</ul></section>"
    )
