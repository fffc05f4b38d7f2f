"""One round of the arena: two rewrites in an order of chance, what each retrieves, and the vote as a canary pair."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_line, normalise_lines
from evaluation.arena.versions import Version
from guard.private_files import keep_private, make_folder
from reward.judge.agreement import Label
from reward.judge.canary import CanaryPair
from reward.records.call import ServiceFailure
from reward.records.files import BadInput, read_records
from reward.records.sample import Context, Hit, Metadata, Sample
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings

TYPED = "typed"  # the sample_id of a query that a person has typed
TOP_K = 5
Retrieve = Callable[[Sample, str], Awaitable[tuple[Hit, ...] | ServiceFailure]]


@dataclass(frozen=True)
class Side:
    """One version's rewrite and the first hits that it finds."""

    version: str
    rewrite: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class Round:
    """Two sides in the order that the voter sees. `seed` gives the order again."""

    sample: Sample
    a: Side
    b: Side
    seed: str

    @property
    def is_decided(self) -> bool:
        """Say whether there is nothing to vote on: both rewrites are the same text."""
        return self.a.rewrite == self.b.rewrite


@dataclass(frozen=True)
class NoContest:
    """A round that cannot be voted on: a version or the retrieval failed."""

    reason: str


def typed_sample(
    query: str, profile: str, summary: str, history: str, tenant: TenantSettings
) -> tuple[Sample | None, Counter[str]]:
    """Make a sample of what a person has typed: normalised, personal data masked, as data preparation does it.

    Returns:
        The sample, None for a blank query; how many places of each kind were masked.
    """
    masked = Counter[str]()

    def clean(text: str, *, keep_lines: bool = False) -> str:
        nonlocal masked
        normal = normalise_lines(text) if keep_lines else normalise_line(text)
        cleaned, found = deidentify_text(normal, tenant.deidentify)
        masked += found
        return cleaned

    context = Context(
        user_profile=clean(profile), history_summary=clean(summary), history_context=clean(history, keep_lines=True)
    )
    asked = clean(query)
    metadata = Metadata(tenant_id=tenant.tenant_id, split="test")
    if not asked:
        return None, masked
    return Sample(sample_id=TYPED, original_query=asked, context=context, metadata=metadata), masked


def draw_sample(samples: Sequence[Sample], versions: Sequence[Version], seed: str) -> Sample | None:
    """Draw one of the samples that every version knows; None when there is none."""
    known = [sample for sample in samples if all(version.knows(sample) for version in versions)]
    return random.Random(f"draw {seed}").choice(known) if known else None


async def play_round(
    sample: Sample, first: Version, second: Version, retrieve: Retrieve, seed: str
) -> Round | NoContest:
    """Rewrite with both versions, retrieve with both rewrites, and put the sides into the order of `seed`."""
    rewrites = await asyncio.gather(first.rewrite(sample), second.rewrite(sample))
    for rewrite in rewrites:
        if isinstance(rewrite, ServiceFailure):
            return NoContest(rewrite.reason)
    found = await asyncio.gather(*(retrieve(sample, str(rewrite)) for rewrite in rewrites))
    sides = []
    for version, rewrite, hits in zip((first, second), rewrites, found, strict=True):
        if isinstance(hits, ServiceFailure):
            return NoContest(hits.reason)
        sides.append(Side(version.name, str(rewrite), hits))
    if random.Random(f"order {seed}").random() < 0.5:
        sides.reverse()
    return Round(sample, sides[0], sides[1], seed)


def retriever(client: RagClient) -> Retrieve:
    """Return what retrieves the first `TOP_K` hits with a rewrite."""

    async def retrieve(sample: Sample, rewrite: str) -> tuple[Hit, ...] | ServiceFailure:
        answer, _ = await client.retrieve(
            sample.original_query, sample.context, rewritten_query=rewrite, top_k=TOP_K, score_threshold=0.0
        )
        return answer if isinstance(answer, ServiceFailure) else answer.hits[:TOP_K]

    return retrieve


class VoteFile:
    """Votes as lines of `reward.judge.canary.CanaryPair`: `reward.canary` and the judge's correction read them.

    `origin` names the versions behind A and B, the seed of their order, the sample and the time.

    Raises:
        BadInput: something else than votes is there.
    """

    def __init__(self, path: Path, tenant: TenantSettings):
        self.path, self._tenant = path, tenant
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: is no file")
        self.count = sum(1 for _ in read_records(path, CanaryPair)) if path.is_file() else 0

    def append(self, game: Round, preferred: Label, note: str = "") -> CanaryPair:
        """Append the vote; it survives a kill once this returns.

        Args:
            note: why, in the voter's words; personal data is masked.

        Raises:
            OSError: the file cannot be written.
        """
        when = datetime.now(UTC).isoformat(timespec="seconds")
        pair = CanaryPair(
            pair_id=f"arena_{uuid.uuid4().hex[:16]}",
            original_query=game.sample.original_query,
            context=game.sample.context,
            rewrite_a=game.a.rewrite,
            rewrite_b=game.b.rewrite,
            preferred=preferred,
            note=deidentify_text(normalise_line(note), self._tenant.deidentify)[0],
            origin=f"arena: a={game.a.version} b={game.b.version} seed={game.seed} "
            f"sample={game.sample.sample_id} at={when}",
        )
        make_folder(self.path.parent)
        with open(self.path, "a+b", opener=keep_private) as out:
            # In one write: votes of two pages, or of two commands, do not mix.
            out.write(_line_start(out) + pair.model_dump_json().encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self.count += 1
        return pair


def _line_start(file: BinaryIO) -> bytes:
    """Return what brings the end of `file` to the start of a line: somebody may have edited it."""
    if not file.seek(0, os.SEEK_END):
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"
