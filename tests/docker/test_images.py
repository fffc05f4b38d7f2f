"""The images as far as no Docker engine is needed: lint, schema, build context, the RAG image's commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from docker.utils.build import exclude_paths

from tests.support import ROOT
from tests.support.commands import run_command
from tests.support.ports import free_port

DOCKERFILES = sorted(ROOT.glob("docker/*Dockerfile"))
BIN = Path(sys.executable).parent


def context(root: Path) -> set[str]:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    return {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}


def dockerfile_text(path: Path) -> str:
    return path.read_text().replace("\\\n", " ")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    result = run_command(str(BIN / "hadolint"), str(path))
    assert result.returncode == 0, result.stdout


def test_the_compose_file_follows_its_schema():
    checker = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    result = run_command(*checker, str(ROOT / "docker/compose.yaml"))
    assert result.returncode == 0, result.stdout


def test_the_services_wait_for_each_other_and_build_from_existing_files():
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert services["trainer"]["depends_on"]["rag"] == {"condition": "service_healthy"}
    assert services["trainer"]["restart"] == "no" and "http://rag:8000" in services["trainer"]["command"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_pins_its_base_runs_without_root_and_says_what_it_is(path):
    text = dockerfile_text(path)
    assert re.search(r"^FROM \S+@sha256:[0-9a-f]{64}$", text, re.M)
    assert re.search(r"^USER 1000:1000$", text, re.M) and re.search(r"^HEALTHCHECK ", text, re.M)
    assert "org.opencontainers.image.title" in text
    # Dependencies in a layer before the sources.
    install = re.search(r"^RUN .*(?:create_\w*environment\.sh|requirements/rag\.lock)", text, re.M)
    assert install.start() < text.rindex("\nCOPY ")


def test_every_tracked_source_is_in_the_build_context_and_no_data_is(tmp_path):
    packages = ("data_prep", "evaluation", "examples", "export", "guard", "plain_text")
    packages += ("rag", "recipes", "reward", "verl_cpu")
    folders = (*packages, "requirements")
    tracked = run_command("git", "ls-files", *folders).stdout.splitlines()
    stray = [".env", "keys.env", "outputs/a.parquet", "docker/keys.env", "logs.jsonl", "rag/.env", "rag/export.xlsx"]
    stray += ["recipes/run.log", "examples/customers.csv", "reward/ledger.sqlite-wal", "data_prep/rows/notes.txt"]
    for name in (*tracked, *stray):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert context(tmp_path) == set(tracked)


@pytest.mark.full
def test_the_rag_images_commands_serve_a_healthy_service(tmp_path):
    app, data, port = tmp_path / "app", tmp_path / "data", free_port()
    data.mkdir()
    for package in ("guard", "plain_text", "rag"):
        shutil.copytree(ROOT / package, app / package)
    (app / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/rag.lock", app / "requirements")
    text = dockerfile_text(ROOT / "docker/rag.Dockerfile")
    install = next(line for line in text.splitlines() if line.startswith("RUN python -m venv")).removeprefix("RUN ")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": ""}
    subprocess.run(["sh", "-ec", install], cwd=app, env=environment, check=True)
    environment |= {"PATH": f"{app}/.venv/bin:{environment['PATH']}", "PYTHONPATH": str(app)}
    command, health = (
        [word.replace("/data", str(data)).replace("8000", str(port)) for word in json.loads(found)]
        for found in (
            re.search(r"^CMD (\[.*\])$", text, re.M)[1],
            re.search(r"^HEALTHCHECK .* CMD +(\[.*\])$", text, re.M)[1],
        )
    )
    refused = subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "--auth off" in refused.stderr
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]["rag"]["command"]
    open_to_all = shlex.split(compose.replace("/data", str(data)).replace("8000", str(port)))
    service = subprocess.Popen(open_to_all, cwd=app, env=environment)
    try:
        for _ in range(300):
            if subprocess.run(health, cwd=app, env=environment, capture_output=True, check=False).returncode == 0:
                break
            assert service.poll() is None, "the service ended"
            time.sleep(0.1)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).status == 200
    finally:
        service.terminate()
        service.wait(30)
