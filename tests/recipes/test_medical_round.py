"""One whole round of the medical assistant on a CPU: PPO with a value head, a teacher over HTTP, every artefact."""

import json

import pytest

from evaluation.medical.grading import GradedAnswer
from export.medical.layout import Round
from export.medical_round import artefacts, main
from reward.records.files import file_sha256, read_jsonl
from tests.support.scripted_teacher import ScriptedTeacher
from tests.support.training import python

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("medical")
    files = {name: folder / "sample" / f"{name}.jsonl" for name in ("gold_set", "red_team", "dev", "test")}
    python("examples.medical.generate_sample_data", "--out", str(folder / "sample"))
    given = [f"--{name}={files[key]}" for name, key in (("gold", "gold_set"), ("red", "red_team"), ("test", "test"))]
    python("data_prep.build_medical", *given, "--prompts=32", "--out", str(folder / "data/rl"))
    python(
        *("examples.make_tiny_model", "--tenant", "medical", "--text", *map(str, files.values())),
        *("--words", "400", "--hidden", "64", "--out", str(folder / "tiny")),
    )
    return folder


def test_two_steps_leave_every_artefact_and_the_same_command_has_nothing_to_do(root):
    teacher = ScriptedTeacher()
    arguments = [
        *("--round", "r1", "--root", str(root), "--sft", str(root / "tiny"), "--teacher", "self_hosted"),
        *("machine=cpu", "model=tiny", f"rewriter.teacher.base_url={teacher.url}"),
        *("recipe.rl.weights=fp32", "recipe.rl.max_prompt_tokens=128", "recipe.rl.max_new_tokens=24"),
        *("recipe.rl.max_model_len=160", "recipe.rl.prompts_per_step=8", "recipe.rl.prompts_per_update=8"),
        *("recipe.rl.micro_batch=8", "trainer.total_training_steps=2", "trainer.critic_warmup=0"),
        "trainer.val_before_train=false",
    ]
    try:
        # A random model endangers everybody before and after: no risk rises, no rollback.
        assert main(arguments) in (0, 1)
        one = Round(root, "r1")
        record = json.loads((one.model / "round.json").read_text(encoding="utf-8"))
        assert all((root / name).is_file() and file_sha256(root / name) == h for name, h in record["files"].items())
        assert {str(path.relative_to(root)) for path in artefacts(one)} <= set(record["files"])
        assert record["value_head_of"] == "global_step_2" and (one.model / "adapter").is_dir()
        assert any((root / "logs/deepseek_teacher").iterdir())
        answers = [GradedAnswer.model_validate(line) for _, line in read_jsonl(one.model / "answers.jsonl")]
        assert {answer.version for answer in answers} == {"sft", "rl"} and all(answer.teacher for answer in answers)
        assert {answer.question_set for answer in answers} >= {"gold", "red", "test"}

        # Nothing is trained or asked again.
        asked, made = len(teacher.requests), (one.model / "policy/model.safetensors").stat().st_mtime_ns
        assert main(arguments) in (0, 1)
        assert len(teacher.requests) == asked
        assert (one.model / "policy/model.safetensors").stat().st_mtime_ns == made
    finally:
        teacher.close()
