"""The page on which two versions of the medical assistant answer side by side, below a safety notice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from evaluation.arena.page import empty_app
from evaluation.medical.assistant import Answered, Assistant, is_urgent, question_sample
from evaluation.texts import Texts
from guard.personal.masking import mask_message
from reward.settings.recipe import TenantSettings

LONGEST = 1000  # characters of a question


def serve(versions: Mapping[str, Assistant], tenant: TenantSettings, texts: Texts, host: str, port: int) -> None:
    """Serve the page until the process is stopped."""
    app = create_app(versions, tenant, texts, host)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def create_app(
    versions: Mapping[str, Assistant], tenant: TenantSettings, texts: Texts, host: str = "127.0.0.1"
) -> FastAPI:
    """Return the app (`evaluation.arena.page.empty_app`) with the assistant's page."""
    app = empty_app(host)

    @ui.page("/")
    def page() -> None:
        _Page(versions, tenant, texts).draw()

    async def close() -> None:
        for version in versions.values():
            await version.aclose()

    nicegui_app.on_shutdown(close)
    language: Any = {"zh": "zh-CN", "en": "en-US"}[texts.language]
    ui.run_with(app, title=texts("title"), language=language, show_welcome_message=False, favicon="⚕")
    return app


class _Page:
    """One visitor's page."""

    def __init__(self, versions: Mapping[str, Assistant], tenant: TenantSettings, texts: Texts):
        self._versions, self._tenant, self._texts = versions, tenant, texts

    def draw(self) -> None:
        t, names = self._texts, list(self._versions)
        ui.query(".nicegui-content").classes("max-w-5xl mx-auto w-full")
        ui.label(t("title")).classes("text-xl font-semibold").props("role=heading aria-level=1")
        ui.label(t("lead")).classes("text-gray-600")
        ui.label(t("notice")).classes("w-full border-l-4 border-orange-600 bg-orange-50 p-3").props("role=note")
        with ui.row().classes("w-full gap-4"):
            self._first = ui.select(names, label=t("versions.first"), value=names[0]).classes("grow min-w-52")
            self._second = ui.select(names, label=t("versions.second"), value=names[-1]).classes("grow min-w-52")
        self._question = ui.textarea(t("form.question")).classes("w-full").props("autogrow")
        self._ask = ui.button(t("form.ask"), on_click=self._play)
        self._remark = ui.label().classes("text-gray-600").props("role=status")
        self._result = ui.column().classes("w-full")

    async def _play(self) -> None:
        t, typed = self._texts, self._question.value or ""
        if len(typed) > LONGEST:
            self._remark.text = t("form.too_long", most=LONGEST)
            return
        sample, masked = question_sample(typed, self._tenant)
        self._remark.text = t("form.no_question") if sample is None else t("form.masked") if masked else ""
        if sample is None:
            return
        self._result.clear()
        # The warning does not wait for the models.
        if is_urgent(sample.original_query):
            with self._result:
                ui.label(t("urgent")).classes("w-full border-l-4 border-red-700 bg-red-50 p-3").props("role=alert")
        names = (self._first.value, self._second.value)
        self._ask.props("loading").disable()
        try:
            answers = await asyncio.gather(*(self._versions[name].answer(sample) for name in names))
        finally:
            self._ask.props(remove="loading").enable()
        with self._result, ui.element("div").classes("grid w-full gap-4 grid-cols-1 md:grid-cols-2"):
            for name, answered in zip(names, answers, strict=True):
                self._draw_answer(name, answered)

    def _draw_answer(self, name: str, one: Answered) -> None:
        t = self._texts
        with ui.card().classes("w-full").props(f'role=region aria-label="{name}"'):
            ui.label(name).classes("text-gray-600 text-sm")
            if one.failure:
                ui.label(t("answer.failed", reason=mask_message(one.failure))).props("role=alert")
                return
            ui.label(one.answer or t("answer.none")).classes("text-lg break-words whitespace-pre-wrap answer")
            if one.danger:
                ui.label(t("answer.danger", danger=one.danger)).classes("text-red-700 font-semibold danger")
            if one.faults:
                ui.label(t("answer.faults", faults=", ".join(one.faults))).classes("text-sm text-gray-600")
            if one.chain:
                with ui.expansion(t("answer.chain")).classes("w-full"):
                    ui.label(one.chain).classes("text-sm break-words whitespace-pre-wrap chain")
