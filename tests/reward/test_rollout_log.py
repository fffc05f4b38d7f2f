"""The rollout log: what was appended comes back, whatever was killed, resumed or rotated in between."""

import errno
from pathlib import Path

import pytest

from reward.records.files import BadInput
from reward.records.outcome import AbstainReason, Rollout
from reward.records.sample import Metadata
from reward.rollouts.rollout_log import FOLDER, RolloutLog, read_rollouts, rollout_files
from tests.support.commands import run_python
from tests.support.logged_rollouts import make_rollout, make_sample, pointwise


def append(run: Path, *rollouts: Rollout, max_bytes: int = 64 * 2**20) -> RolloutLog:
    log = RolloutLog(run / FOLDER, max_bytes)
    for rollout in rollouts:
        log.append(rollout)
    return log


def written(run: Path) -> list[tuple[int, str]]:
    return [(rollout.step, rollout.completion) for rollout in read_rollouts(run)]


def test_every_kind_of_outcome_comes_back_as_it_was(tmp_path):
    rollouts = [
        make_rollout(1, judgement=pointwise(5, 4)),
        make_rollout(2, rewrite="<think>嗯</think>"),
        make_rollout(3, failed=AbstainReason.RAG),
        make_rollout(34, rewrite='带行号的\u2028的\\n"改写"\n'),
    ]
    append(tmp_path, *rollouts)
    assert list(read_rollouts(tmp_path)) == rollouts
    assert [rollout.outcome.kind for rollout in rollouts] == ["scored", "gated", "abstained", "gated"]


def test_a_line_is_on_disk_before_append_returns(tmp_path):
    log = append(tmp_path, make_rollout(1))
    assert len(written(tmp_path)) == 1
    log.append(make_rollout(2))
    assert len(written(tmp_path)) == 2


def test_a_killed_process_loses_nothing(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from tests.support.logged_rollouts import make_rollout
from reward.rollouts.rollout_log import RolloutLog
log = RolloutLog(Path({str(tmp_path / FOLDER)!r}))
for number in range(50):
    log.append(make_rollout(number, step=1 + number // 10))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python("-c", script)
    assert done.returncode == -9
    assert [step for step, _ in written(tmp_path)] == [1 + number // 10 for number in range(50)]


@pytest.mark.parametrize("kept", [0, 1, 500, -1])
def test_a_torn_last_line_is_ignored_then_cut(tmp_path, kept):
    append(tmp_path, make_rollout(1), make_rollout(2)).close()
    path = rollout_files(tmp_path / FOLDER)[0]
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[0]
    path.write_bytes(whole + line[:kept])
    assert len(written(tmp_path)) == 2

    append(tmp_path, make_rollout(3, step=2))
    assert path.read_bytes() == whole
    assert [step for step, _ in written(tmp_path)] == [1, 1, 2]


def test_a_torn_only_line_leaves_an_empty_file(tmp_path):
    append(tmp_path, make_rollout(1)).close()
    path = rollout_files(tmp_path / FOLDER)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert written(tmp_path) == []
    append(tmp_path, make_rollout(2))
    assert path.read_bytes() == b"" and len(written(tmp_path)) == 1


def test_files_change_between_steps_once_they_are_large(tmp_path):
    append(tmp_path, *(make_rollout(n, step=1 + n // 4) for n in range(12)), max_bytes=1)
    files = rollout_files(tmp_path / FOLDER)
    assert [path.name for path in files] == [f"rollouts-{n:05d}.jsonl" for n in range(3)]
    assert [len(path.read_text().splitlines()) for path in files] == [4, 4, 4]
    assert [step for step, _ in written(tmp_path)] == [1] * 4 + [2] * 4 + [3] * 4


def test_a_repeated_step_replaces_itself_and_what_came_after(tmp_path):
    append(
        tmp_path, make_rollout(1, step=1, rewrite="一"), make_rollout(1, step=2, rewrite="二"), make_rollout(1, step=3)
    )
    append(tmp_path, make_rollout(1, step=2, rewrite="二 重来"), make_rollout(1, step=3, rewrite="三 重来"))
    assert written(tmp_path) == [(1, "一"), (2, "二 重来"), (3, "三 重来")]
    append(tmp_path, make_rollout(1, step=3, rewrite="三 又来"))
    assert written(tmp_path) == [(1, "一"), (2, "二 重来"), (3, "三 又来")]


def test_a_resumed_run_that_repeats_nothing_keeps_everything(tmp_path):
    append(tmp_path, make_rollout(1, step=1), make_rollout(2, step=2))
    append(tmp_path, make_rollout(3, step=3))
    assert [step for step, _ in written(tmp_path)] == [1, 2, 3]


def test_stragglers_of_an_earlier_step_replace_nothing(tmp_path):
    append(tmp_path, *(make_rollout(n, step=step) for n, step in enumerate((1, 2, 1, 3, 2, 3))), max_bytes=1)
    assert len(rollout_files(tmp_path / FOLDER)) == 3
    assert [step for step, _ in written(tmp_path)] == [1, 2, 1, 3, 2, 3]


def test_a_validation_before_the_resumed_training_replaces_nothing(tmp_path):
    append(tmp_path, make_rollout(1, step=1), make_rollout(1, step=2))
    validated = make_sample(1, metadata=Metadata(tenant_id="fivedoctors", split="val"))
    append(tmp_path, make_rollout(1, step=1, sample=validated), make_rollout(1, step=3))
    assert [step for step, _ in written(tmp_path)] == [1, 2, 1, 3]


def test_a_bad_line_is_named(tmp_path):
    append(tmp_path, make_rollout(1), make_rollout(2)).close()
    path = rollout_files(tmp_path / FOLDER)[0]
    path.write_bytes(path.read_bytes() + b'{"step": "x"}\n')
    with pytest.raises(BadInput, match=r"rollouts-00000\.jsonl: row 3: step: "):
        written(tmp_path)
    with pytest.raises(BadInput, match="no rollouts"):
        written(tmp_path / "elsewhere")


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A real full file system: the kernel's limit on the size of a file."""
    script = f"""
import resource, signal
from pathlib import Path
from tests.support.logged_rollouts import make_rollout
from reward.rollouts.rollout_log import RolloutLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
log = RolloutLog(Path({str(tmp_path / FOLDER)!r}))
try:
    for number in range(10):
        log.append(make_rollout(number))
except OSError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append(make_rollout(59))
    raise SystemExit(error.errno)
"""
    done = run_python("-c", script)
    assert done.returncode == errno.EFBIG
    rewrites = [rewrite for _, rewrite in written(tmp_path)]
    assert rewrites[-1] == make_rollout(59).completion and len(rewrites) >= 2
