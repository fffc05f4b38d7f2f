"""Knowledge bases and their documents: create, list, add, replace, delete, rebuild."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from unicodedata import normalize

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi import Path as PathField
from starlette.datastructures import UploadFile

from rag.catalogue.catalogue import KnowledgeBaseExists
from rag.catalogue.holdings import LimitReached
from rag.documents.document_name import LONGEST_NAME
from rag.documents.read_documents import SUFFIXES, document_name
from rag.documents.records import IngestError
from rag.service.deployment import Deployment
from rag.service.knowledge_contracts import (
    NAME_PATTERN,
    DocumentChange,
    DocumentDetail,
    DocumentInfo,
    DocumentPage,
    KnowledgeBaseDetail,
    KnowledgeBaseInfo,
    KnowledgeBaseRequest,
    PassageInfo,
    RebuildStarted,
    VersionInfo,
)
from rag.service.problems import problems
from rag.service.read_request import KeyFirst

_KBS = "/api/tenants/{tenant}/knowledge_bases"
_KB = f"{_KBS}/{{kb}}"
_DOCUMENT = f"{_KB}/documents/{{name:path}}"

TenantPath = Annotated[str, PathField(pattern=NAME_PATTERN, examples=["fivedoctors"])]
KbPath = Annotated[str, PathField(min_length=1, max_length=200, examples=["default"])]
NamePath = Annotated[
    str, PathField(max_length=LONGEST_NAME, description="relative path with a suffix", examples=["faq/usage.md"])
]


def knowledge_routes(deployment: Deployment) -> APIRouter:
    router = APIRouter(tags=["knowledge bases"], dependencies=[Depends(deployment.gate)], route_class=KeyFirst)
    catalogue, writer = deployment.catalogue, deployment.writer

    @router.get(_KBS, summary="A tenant's knowledge bases", responses=problems())
    async def list_knowledge_bases(tenant: TenantPath, http: Request) -> list[KnowledgeBaseInfo]:
        await deployment.admit(http, tenant)
        return [KnowledgeBaseInfo.of(kb) for kb in catalogue.knowledge_bases(tenant)]

    @router.post(_KBS, summary="Create a knowledge base", status_code=201, responses=problems(409))
    async def create_knowledge_base(tenant: TenantPath, body: KnowledgeBaseRequest, http: Request) -> KnowledgeBaseInfo:
        await deployment.admit(http, tenant, "manage")
        try:
            most = deployment.settings.tenant(tenant).max_knowledge_bases
            made = await writer.write(tenant, catalogue.create_knowledge_base, tenant, body.name, most)
            return KnowledgeBaseInfo.of(made)
        except (KnowledgeBaseExists, LimitReached) as error:
            raise HTTPException(409, str(error)) from None

    @router.get(_KB, summary="A knowledge base and the version that is searched", responses=problems(404))
    async def show_knowledge_base(tenant: TenantPath, kb: KbPath, http: Request) -> KnowledgeBaseDetail:
        await deployment.admit(http, tenant)
        found = deployment.find(http, tenant, kb)
        rebuilding = writer.is_rebuilding(found)
        return KnowledgeBaseDetail(
            **KnowledgeBaseInfo.of(found).model_dump(),
            state="rebuilding" if rebuilding else "live" if found.live_version is not None else "empty",
            rebuild_failure=writer.rebuild_failure(found),
            version=VersionInfo.of(catalogue, found),
        )

    @router.delete(_KB, summary="Delete a knowledge base", status_code=204, responses=problems(404))
    async def delete_knowledge_base(tenant: TenantPath, kb: KbPath, http: Request) -> Response:
        """And everything in it, at once."""
        await deployment.admit(http, tenant, "manage")
        await writer.drop(deployment.find(http, tenant, kb))
        return Response(status_code=204)

    @router.post(f"{_KB}/rebuild", summary="Build the index anew", status_code=202, responses=problems(404, 409))
    async def rebuild(tenant: TenantPath, kb: KbPath, http: Request) -> RebuildStarted:
        """In the background, while the present version is searched. Happens by itself, too, when enough has changed."""
        await deployment.admit(http, tenant, "manage")
        found = deployment.find(http, tenant, kb)
        if not found.passages:
            raise HTTPException(409, f"knowledge base {kb!r} holds no passages")
        return RebuildStarted(started=writer.start_rebuild(found))

    @router.get(f"{_KB}/documents", summary="Its documents, by name", responses=problems(404))
    async def list_documents(
        tenant: TenantPath,
        kb: KbPath,
        http: Request,
        after: Annotated[str, Query(max_length=1000, description="the page begins after this name")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DocumentPage:
        await deployment.admit(http, tenant, "manage")
        rows = catalogue.documents(deployment.find(http, tenant, kb).id, after, limit + 1)
        page = [
            DocumentInfo(name=row.name, passages=row.passages, content_hash=row.content_hash, updated_at=row.updated_at)
            for row in rows[:limit]
        ]
        return DocumentPage(documents=page, next=page[-1].name if len(rows) > limit else None)

    @router.get(_DOCUMENT, summary="A document's passages", responses=problems(404))
    async def show_document(tenant: TenantPath, kb: KbPath, name: NamePath, http: Request) -> DocumentDetail:
        await deployment.admit(http, tenant, "manage")
        found = deployment.find(http, tenant, kb)
        passages = catalogue.document(found.id, name) or catalogue.document(found.id, normalize("NFC", name))
        if not passages:
            raise _no_document(name, kb)
        return DocumentDetail(
            name=passages[0].document, passages=[PassageInfo(doc_id=p.key, content=p.content) for p in passages]
        )

    @router.put(
        _DOCUMENT,
        summary="Add or replace a document",
        status_code=201,
        responses={
            200: {"model": DocumentChange, "description": "replaced, or unchanged"},
            **problems(404, 409, 415),
        },
        openapi_extra=_upload_body(),
    )
    async def put_document(
        tenant: TenantPath, kb: KbPath, name: NamePath, http: Request, response: Response
    ) -> DocumentChange:
        """The body is the file, or a form with one file. When the answer comes, the document is stored durably and the
        next search finds it. Sending the same file again changes nothing. A .jsonl holds a document a row."""
        await deployment.admit(http, tenant, "manage")
        found = deployment.find(http, tenant, kb)
        name = _checked(name)
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise HTTPException(415, f"{name}: of no kind that can be read ({', '.join(sorted(SUFFIXES))})")
        with tempfile.TemporaryDirectory(prefix="rag-upload-") as folder:
            file = Path(folder) / f"upload{suffix}"
            await _receive(http, file)
            try:
                change = await writer.put(found, file, name, http.is_disconnected)
            except IngestError as error:
                raise HTTPException(422, str(error)) from None
            except LimitReached as error:
                raise HTTPException(409, str(error)) from None
        if not change.added:
            response.status_code = 200
        return DocumentChange(
            name=name,
            state="added" if change.added else "replaced" if change.replaced else "unchanged",
            added=change.added,
            replaced=change.replaced,
            unchanged=change.unchanged,
            revision=change.revision,
        )

    @router.delete(_DOCUMENT, summary="Delete a document", status_code=204, responses=problems(404))
    async def delete_document(tenant: TenantPath, kb: KbPath, name: NamePath, http: Request) -> Response:
        """When the answer comes, no search finds it any more."""
        await deployment.admit(http, tenant, "manage")
        found = deployment.find(http, tenant, kb)
        change = await writer.delete(found, name)
        if not change.deleted:
            change = await writer.delete(found, normalize("NFC", name))
        if not change.deleted:
            raise _no_document(name, kb)
        return Response(status_code=204)

    return router


def _checked(name: str) -> str:
    try:
        return document_name(name)
    except IngestError as error:
        raise HTTPException(422, f"name: {error}") from None


def _no_document(name: str, kb: str) -> HTTPException:
    return HTTPException(404, f"unknown document {name!r} of knowledge base {kb!r}")


async def _receive(http: Request, file: Path) -> None:
    """Write the body, or the one file of a form, to `file`.

    Raises:
        HTTPException: 400, a form that is damaged or holds no file.
    """
    with file.open("wb") as out:
        if not http.headers.get("content-type", "").startswith("multipart/form-data"):
            async for chunk in http.stream():
                await asyncio.to_thread(out.write, chunk)  # a busy disk lets writers wait
            return
        async with http.form(max_files=1, max_fields=10) as form:
            upload = next((value for value in form.values() if isinstance(value, UploadFile)), None)
            if upload is None:
                raise HTTPException(400, "the form holds no file")
            while chunk := await upload.read(1 << 20):
                await asyncio.to_thread(out.write, chunk)


def _upload_body() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": binary}, "required": ["file"]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": binary},
                "multipart/form-data": {"schema": form},
            },
        }
    }
