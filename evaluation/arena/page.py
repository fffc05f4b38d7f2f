"""The arena in the browser, drawn by NiceGUI, which serves its scripts and fonts itself and reports to nobody."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from nicegui import app as nicegui_app
from nicegui import events, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from evaluation.arena.batch import rewrite_workbook
from evaluation.arena.rounds import (
    NoContest,
    Retrieve,
    Round,
    Side,
    VoteFile,
    draw_sample,
    play_round,
    retriever,
    typed_sample,
)
from evaluation.arena.versions import Version
from evaluation.texts import Texts
from guard.personal.masking import mask_message
from guard.web.origins import LOOPBACK
from reward.judge.agreement import Label
from reward.records.files import BadInput
from reward.records.sample import Sample
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings

BATCH_ROWS, BATCH_BYTES = 1000, 20_000_000
LONGEST = {"query": 500, "profile": 1000, "summary": 1000, "history": 4000}  # characters
# The page may load nothing from elsewhere, whatever a library would like to. Vue compiles its templates in the browser.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_QUASAR: Mapping[str, Literal["zh-CN", "en-US"]] = {"zh": "zh-CN", "en": "en-US"}


@dataclass
class Arena:
    """What one arena serves. `seed`: of the draws and the orders of its rounds."""

    tenant: TenantSettings
    versions: Mapping[str, Version]
    samples: Sequence[Sample]
    client: RagClient
    votes: VoteFile
    texts: Texts
    seed: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @cached_property
    def retrieve(self) -> Retrieve:
        return retriever(self.client)

    async def aclose(self) -> None:
        await self.client.aclose()
        for version in self.versions.values():
            await version.aclose()

    def next_seed(self) -> str:
        """Return the seed of the next round or draw: no two share one."""
        return f"{self.seed}-{next(self._numbers)}"


def serve(arena: Arena, host: str, port: int) -> None:
    """Serve the arena until the process is stopped."""
    uvicorn.run(create_app(arena, host), host=host, port=port, log_level="warning", access_log=False)


def empty_app(host: str) -> FastAPI:
    """Return an app without pages. On a loopback address it answers to that name alone: no other site's page can read
    it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def add_policy(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return app


def create_app(arena: Arena, host: str = "127.0.0.1") -> FastAPI:
    """Return the app (`empty_app`) with the arena's page."""
    app = empty_app(host)

    @ui.page("/")
    def page() -> None:
        _Page(arena).draw()

    nicegui_app.on_shutdown(arena.aclose)
    ui.button.default_props("no-caps")
    ui.run_with(
        app, title=arena.texts("title"), language=_QUASAR[arena.texts.language], show_welcome_message=False, favicon="⚖"
    )
    return app


class _Page:
    """One visitor's page. Which version is A stays on this side until the vote."""

    def __init__(self, arena: Arena):
        self._arena, self._texts = arena, arena.texts
        self._drawn: Sample | None = None
        self._consents = False  # to all rounds on this page, until withdrawn

    def draw(self) -> None:
        t = self._texts
        ui.query(".nicegui-content").classes("max-w-5xl mx-auto w-full")
        ui.label(t("title")).classes("text-xl font-semibold").props("role=heading aria-level=1")
        ui.label(t("lead", tenant=self._arena.tenant.tenant_id)).classes("text-gray-600")
        if self._arena.tenant.medical:
            ui.label(t("notice")).classes("w-full border-l-4 border-orange-600 bg-orange-50 p-3").props("role=note")
        with ui.tabs().props("no-caps") as tabs:
            arena, batch = ui.tab("arena", t("tabs.arena")), ui.tab("batch", t("tabs.batch"))
        with ui.tab_panels(tabs, value=arena).classes("w-full"):
            with ui.tab_panel(arena).classes("p-0"):
                self._draw_question()
                self._result = ui.column().classes("w-full")
            with ui.tab_panel(batch).classes("p-0"):
                self._draw_batch()

    def _draw_question(self) -> None:
        t, names = self._texts, list(self._arena.versions)
        with ui.row().classes("w-full gap-4"):
            self._first = ui.select(names, label=t("versions.first"), value=names[-1]).classes("grow min-w-52")
            self._second = ui.select(names, label=t("versions.second"), value=names[-2]).classes("grow min-w-52")
        self._fields = {"query": ui.input(t("form.query")).classes("w-full")}
        self._context = ui.expansion(t("form.context")).classes("w-full")
        with self._context:
            self._fields["profile"] = ui.input(t("form.profile")).classes("w-full")
            self._fields["summary"] = ui.input(t("form.summary")).classes("w-full")
            self._fields["history"] = ui.textarea(t("form.history")).classes("w-full").props("autogrow")
        with ui.row().classes("gap-2"):
            self._compare = ui.button(t("form.compare"), on_click=self._play)
            if self._arena.samples:
                ui.button(t("form.draw"), on_click=self._draw_sample).props("outline")
        self._remark = ui.label().classes("text-gray-600").props("role=status")

    def _chosen(self) -> tuple[Version, Version] | None:
        first, second = self._first.value, self._second.value
        if first == second:
            self._remark.text = self._texts("versions.same")
            return None
        return self._arena.versions[first], self._arena.versions[second]

    def _draw_sample(self) -> None:
        versions = self._chosen()
        if versions is None:
            return
        self._result.clear()
        sample = draw_sample(self._arena.samples, versions, self._arena.next_seed())
        if sample is None:
            self._remark.text = self._texts("form.none_known")
            return
        self._drawn = sample
        for name, text in _texts_of(sample).items():
            self._fields[name].value = text
        self._context.value = bool(sample.context.text)
        self._remark.text = self._texts("form.drawn", sample_id=sample.sample_id)

    def _asked(self) -> Sample | None:
        """Return the sample of the form: the drawn one while nobody has edited it."""
        texts = {name: field.value or "" for name, field in self._fields.items()}
        if self._drawn is not None and texts == _texts_of(self._drawn):
            return self._drawn
        for name, text in texts.items():
            if len(text) > LONGEST[name]:
                self._remark.text = self._texts("form.too_long", field=self._texts(f"form.{name}"), most=LONGEST[name])
                return None
        sample, masked = typed_sample(**texts, tenant=self._arena.tenant)
        kinds = ", ".join(self._texts(f"kinds.{kind}") for kind in masked)
        self._remark.text = self._texts("form.masked", kinds=kinds) if masked else ""
        if sample is None:
            self._remark.text = self._texts("form.no_query")
        return sample

    async def _play(self) -> None:
        versions = self._chosen()
        sample = self._asked() if versions else None
        if versions is None or sample is None:
            return
        self._result.clear()
        self._compare.props("loading").disable()
        try:
            game = await play_round(sample, *versions, self._arena.retrieve, self._arena.next_seed())
        finally:
            self._compare.props(remove="loading").enable()
        with self._result:
            if isinstance(game, NoContest):
                ui.label(self._texts("round.no_contest", reason=mask_message(game.reason))).props("role=alert")
            else:
                self._draw_round(game)

    def _draw_round(self, game: Round) -> None:
        with ui.element("div").classes("grid w-full gap-4 grid-cols-1 md:grid-cols-2"):
            for name, side in (("A", game.a), ("B", game.b)):
                self._draw_side(name, side)
        if game.is_decided:
            ui.label(self._texts("round.equal")).props("role=status")
            return
        verdict = ui.column().classes("w-full")
        with verdict:
            self._draw_vote(game, verdict)

    def _draw_side(self, name: str, side: Side) -> None:
        t = self._texts
        with ui.card().classes("w-full").props(f"role=region aria-label={name}"):
            ui.label(f"{name} · {t('round.rewrite')}").classes("text-gray-600 text-sm")
            ui.label(side.rewrite).classes("text-lg font-semibold break-words rewrite")
            ui.label(t("round.hits") if side.hits else t("round.no_hits")).classes("text-gray-600 text-sm")
            for place, hit in enumerate(side.hits, start=1):
                with ui.element("div").classes("w-full border-t border-gray-200 pt-2 hit"):
                    ui.label(hit.content).classes("text-sm break-words content")
                    score = t("round.score", score=f"{hit.relevance:.3f}")
                    ui.label(f"{place} · {score}").classes("text-xs text-gray-600")

    def _draw_vote(self, game: Round, verdict: ui.column) -> None:
        t = self._texts
        consent = ui.checkbox(t("vote.consent"), value=self._consents)
        note = ui.input(t("vote.note")).classes("w-full").props("maxlength=300")

        def vote(preferred: Label) -> None:
            reason, self._consents = note.value or "", consent.value
            verdict.clear()
            with verdict:
                self._reveal(game, preferred, reason)

        with ui.row().classes("gap-2"):
            ui.button(t("vote.a"), on_click=lambda: vote("a"))
            ui.button(t("vote.tie"), on_click=lambda: vote("tie")).props("outline")
            ui.button(t("vote.b"), on_click=lambda: vote("b"))
        ui.label(t("vote.without_consent")).classes("text-gray-600 text-sm")

    def _reveal(self, game: Round, preferred: Label, reason: str) -> None:
        t, votes = self._texts, self._arena.votes
        kept = t("vote.not_kept")
        if self._consents:
            try:
                pair = votes.append(game, preferred, reason)
                kept = t("vote.stored", pair_id=pair.pair_id, count=votes.count, file=votes.path.name)
            except OSError as error:
                kept = t("vote.failed", reason=error.strerror or error)
        ui.label(t("vote.revealed", a=game.a.version, b=game.b.version)).classes("text-lg font-semibold").props(
            "role=status"
        )
        relevant = set(game.sample.relevant_doc_ids)
        for name, side in (("A", game.a), ("B", game.b)):
            places = [place for place, hit in enumerate(side.hits, start=1) if hit.doc_id in relevant]
            if places:
                ui.label(f"{name}: {t('round.right')} #{places[0]}")
        ui.label(kept).classes("kept")

    def _draw_batch(self) -> None:
        t, names = self._texts, list(self._arena.versions)
        ui.label(t("batch.lead", rows=BATCH_ROWS))
        version = ui.select(names, label=t("batch.version"), value=names[-1]).classes("min-w-52")
        remark = ui.label().props("role=status")
        result = ui.row()

        def tell(done: int, total: int) -> None:
            remark.set_text(t("batch.progress", done=done, total=total))

        async def take(upload: events.UploadEventArguments) -> None:
            result.clear()
            uploader.reset()
            if upload.file.size() > BATCH_BYTES:
                remark.set_text(t("batch.failed", reason=t("batch.too_large", megabytes=BATCH_BYTES // 1_000_000)))
                return
            with tempfile.TemporaryDirectory(prefix="arena_") as folder:
                source, out = Path(folder) / "queries.xlsx", Path(folder) / "rewrites.xlsx"
                await upload.file.save(source)
                try:
                    counts = await rewrite_workbook(
                        source,
                        out,
                        self._arena.versions[version.value],
                        self._arena.retrieve,
                        self._arena.tenant,
                        most_rows=BATCH_ROWS,
                        on_row=tell,
                    )
                except BadInput as problem:
                    reason = mask_message(str(problem).replace(str(source), upload.file.name))
                    remark.set_text(t("batch.failed", reason=reason))
                    return
                content = out.read_bytes()
            done = t("batch.done", rows=counts.rows, failed=counts.failed, refused=counts.refused)
            first = (line.replace(str(source), upload.file.name) for line in counts.left_out[:1])
            remark.set_text(" ".join([done, *map(mask_message, first)]))
            with result:
                ui.button(t("batch.download"), on_click=lambda: ui.download(content, "rewrites.xlsx"))

        uploader = ui.upload(
            label=t("batch.upload"), auto_upload=True, max_files=1, max_file_size=BATCH_BYTES, on_upload=take
        ).props("accept=.xlsx")


def _texts_of(sample: Sample) -> dict[str, str]:
    """Return a sample's texts under the names of the form's fields."""
    context = sample.context
    return {
        "query": sample.original_query,
        "profile": context.user_profile,
        "summary": context.history_summary,
        "history": context.history_context,
    }
