"""The lock for GPUs as far as no GPU, no CUDA and no gigabytes are needed: resolved for its Python, not downloaded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

UV = str(Path(sys.executable).parent / "uv")
LOCK = ROOT / "requirements" / "gpu.lock"
PYTHON = ["--python-version", "3.12", "--python-platform"]
IMAGE, OLDEST = "x86_64-manylinux_2_39", "x86_64-manylinux_2_28"  # glibc of Ubuntu 24.04; what the lock is resolved for
# They come as source: pure Python, and what is compiled against the installed torch.
WITHOUT_WHEEL = ("antlr4-python3-runtime", "jieba", "flash-attn")


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, flags=re.MULTILINE))


@pytest.mark.full
def test_every_locked_package_is_there_for_python_312(tmp_path):
    sources = [argument for name in WITHOUT_WHEEL for argument in ("--no-binary", name)]
    command = [
        UV,
        "pip",
        "install",
        "--dry-run",
        "--no-deps",
        "--require-hashes",
        "--target",
        str(tmp_path),
        *PYTHON,
        IMAGE,
    ]
    command += ["--only-binary", ":all:", *sources, "--no-build-isolation", "-r", str(LOCK)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = dict(re.findall(r"^ \+ ([\w.-]+)==(\S+)$", ended.stderr, flags=re.MULTILINE))
    assert found == pins(LOCK.read_text()) and len(found) > 200


@pytest.mark.full
def test_the_lock_still_answers_pyproject(tmp_path):
    command = [
        UV,
        "pip",
        "compile",
        "--quiet",
        "pyproject.toml",
        "--extra",
        "gpu",
        "--constraints",
        str(LOCK),
        *PYTHON,
        OLDEST,
    ]
    ended = subprocess.run([*command, "-o", str(tmp_path / "again.lock")], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert pins((tmp_path / "again.lock").read_text()) == pins(LOCK.read_text())


def test_cuda_and_torch_are_of_one_major_version():
    locked = pins(LOCK.read_text())
    cuda = {name: version for name, version in locked.items() if re.match(r"nvidia-(cuda-runtime|cublas)$", name)}
    assert cuda and all(version.startswith("13.") for version in cuda.values())
    assert (
        f"torch {'.'.join(locked['torch'].split('.')[:2])}"
        in (ROOT / "requirements/create_gpu_environment.sh").read_text()
    )
    assert "cuda:13." in (ROOT / "docker/Dockerfile").read_text()


def create_gpu_environment(python: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": python, **variables}
    script = ["bash", "requirements/create_gpu_environment.sh"]
    return subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_another_python_is_refused_before_anything_is_replaced(tmp_path):
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    if sys.version_info[:2] == (3, 12):
        pytest.skip("this is the right Python")
    ended = create_gpu_environment(str(other))
    assert ended.returncode != 0 and "gpu.lock is for Python 3.12" in ended.stderr


def test_a_wheel_without_its_hash_is_refused_before_anything_is_replaced(tmp_path):
    right = tmp_path / "python"
    right.write_text("#!/bin/sh\nexit 0\n")  # passes for Python 3.12, and makes no environment
    right.chmod(0o755)
    ended = create_gpu_environment(str(right), FLASH_ATTN_WHEEL="https://example.org/flash_attn.whl")
    assert ended.returncode == 2 and "#sha256=" in ended.stderr
