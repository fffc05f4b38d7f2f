"""Dependencies run one way, and only the adapter files know the trainer."""

import ast
import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from tests.support import ROOT

PACKAGES = (
    "benchmarks",
    "data_prep",
    "evaluation",
    "export",
    "guard",
    "plain_text",
    "rag",
    "recipes",
    "reranker",
    "reward",
    "verl_cpu",
)
TRAINER_ADAPTERS = {
    "recipes/checkpoint_callback.py",
    "reward/verl_sampler.py",
    "verl_cpu/platform.py",
    "verl_cpu/engines.py",
    "verl_cpu/packed_engine.py",
}
# Who may talk to the world from within `reward`: HTTP, the judge's API, the ledger's file, Ray.
WORLD = {
    "aiohttp": {"reward/services/http_calls.py", "reward/judge/chat_api.py"},
    "openai": {"reward/judge/chat_api.py"},
    "sqlite3": {"reward/ledger/ledger.py", "reward/ledger/ledger_file.py", "reward/export_ledger.py"},
    "ray": {"reward/engine_actor.py"},
}
NAMES_THAT_OWN_NOTHING = {"utils", "common", "helpers", "base", "misc"}


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def test_layers(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0


def test_only_the_adapters_import_the_trainer():
    importing = {
        str(path.relative_to(ROOT))
        for path in modules()
        if path.parts[len(ROOT.parts)] != "benchmarks"  # they measure verl's own parts beside ours
        and any(name.split(".")[0] in ("verl", "transfer_queue") for name in imported(path))
    }
    assert importing == TRAINER_ADAPTERS


@pytest.mark.parametrize("library", WORLD)
def test_only_the_clients_do_io(library):
    importing = {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "reward").rglob("*.py"))
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert importing == WORLD[library]


def test_every_module_owns_something():
    assert not [path for path in modules() if path.stem in NAMES_THAT_OWN_NOTHING]


def test_files_stay_readable():
    assert not [path for path in modules() if len(path.read_text(encoding="utf-8").splitlines()) > 350]


def test_one_writer_of_spreadsheets_quotes_formulas():
    """CSV files by `reward.records.spreadsheet`, workbooks by `data_prep.bvt.workbook`."""
    written = re.compile(r"csv\.(writer|DictWriter)|to_csv|to_excel|xlsxwriter\.Workbook|openpyxl\.Workbook")
    writers = {
        str(path.relative_to(ROOT)) for path in modules() if written.search(path.read_text(encoding="utf-8"))
    } - {
        "benchmarks/data_prep_runs/inputs.py",  # makes what the readers are measured on
        "benchmarks/hostile_runs/bodies.py",  # and what an attacker sends
    }
    assert writers == {"reward/records/spreadsheet.py", "data_prep/bvt/workbook.py"}
