#!/usr/bin/env bash
# One whole round of a medical assistant on a CPU, with made-up questions and a tiny model: prompts, SFT, reinforcement
# learning under rules and a teacher, the report on SFT and RL. No medical advice.
#
#   bash examples/medical.sh [recipe overrides]
#
#   MEDICAL_OUT=outputs/medical   where everything goes; a second run resumes there
#   TEACHER=self_hosted           a profile of recipes/config/teacher; default none: the rules score alone
#
# Minutes on two cores: SFT 3, the round 25 (trainer.total_training_steps=24: 7).
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
out=${MEDICAL_OUT:-outputs/medical} teacher=${TEACHER:-none}

# Made-up questions: the gold set shows how to answer, the red team asks what it does not show.
"$python" -m examples.medical.generate_sample_data --out "$out/sample"
"$python" -m data_prep.build_medical --gold "$out/sample/gold_set.jsonl" --red "$out/sample/red_team.jsonl" \
  --dev "$out/sample/dev.jsonl" --test "$out/sample/test.jsonl" --out "$out/data/rl"
"$python" -m examples.make_tiny_model --tenant medical --text "$out"/sample/*.jsonl --words 400 --out "$out/tiny"

# SFT teaches the form of an answer and what the gold set holds.
tiny=(machine=cpu model=tiny recipe.pretrained="$out/tiny")
bash recipes/medical_sft.sh "${tiny[@]}" recipe.data_dir="$out/data/rl" recipe.output_dir="$out/sft" \
  recipe.sft.batch=32 recipe.sft.micro_batch=32 recipe.sft.epochs=24

# One round of PPO; the overrides that follow ours win.
"$python" -m export.medical_round --round r1 --root "$out" --sft "$out/sft/final" --teacher "$teacher" "${tiny[@]}" \
  recipe.rl.weights=fp32 recipe.rl.max_prompt_tokens=128 recipe.rl.max_new_tokens=80 recipe.rl.max_model_len=224 \
  recipe.rl.prompts_per_step=64 recipe.rl.prompts_per_update=64 recipe.rl.micro_batch=32 recipe.rl.epochs=15 \
  recipe.rl.temperature=1.0 recipe.rl.actor_lr=3e-4 trainer.critic_warmup=3 trainer.val_before_train=false "$@"
