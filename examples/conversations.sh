#!/usr/bin/env bash
# A real pretrained model on real conversations, on a CPU: knowledge base, batch test, SFT on what people wrote,
# reinforcement learning on live retrieval, and a report on conversations that it never saw.
#
#   bash examples/conversations.sh --set DIR
#
# DIR holds conversations in BEIR layout (see `python -m examples.prepare_conversations --help`).
#
# Options:
#   --out DIR           where everything goes (default outputs/conversations; a second run resumes there)
#   --model DIR|NAME    the model to start from: a folder or a name of the hub, Llama or Qwen
#                       (default: SmolLM2-135M-Instruct, by examples/get_small_model.py)
#   --sft-steps N       of 8 recorded rewrites each (default 120)
#   --steps N           reinforcement-learning steps of 16 prompts and 96 rollouts (default 60)
#   --algorithm A       grpo (default) or rloo
#   --rag-port P        port of the retrieval service (default 8000)
#   --baseline-port P   port of the recorded rewrites (default 7861)
#   --seed N            of data and evaluation (default 0)
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/.."

out=outputs/conversations set="" model="" sft_steps=120 steps=60 algorithm=grpo rag_port=8000 baseline_port=7861 seed=0
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --out | --set | --model | --sft-steps | --steps | --algorithm | --rag-port | --baseline-port | --seed)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      name=${1#--}; declare "${name//-/_}=$2"; shift 2 ;;
    *) echo "error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
case $algorithm in grpo | rloo) ;; *) echo "error: --algorithm $algorithm: grpo or rloo" >&2; exit 2 ;; esac
for number in "$sft_steps" "$steps"; do
  case $number in '' | 0 | *[!0-9]*) echo "error: --steps and --sft-steps: $number is no number of steps" >&2; exit 2 ;; esac
done
# Paths are the caller's.
[ "$out" = outputs/conversations ] || [ "${out#/}" != "$out" ] || out=$caller/$out
[ -n "$set" ] || { echo "error: --set DIR is missing (see --help)" >&2; exit 2; }
[ "${set#/}" != "$set" ] || set=$caller/$set
case $model in /*) model_folder=$model ;; *) model_folder=$caller/$model ;; esac
[ -f "$set/corpus.jsonl" ] || { echo "error: --set $set: no corpus.jsonl there" >&2; exit 2; }

bash requirements/create_environment.sh
python=$PWD/.venv/bin/python
mkdir -p "$out/logs"
out=$(cd "$out" && pwd)
rag_url=http://127.0.0.1:$rag_port
source examples/stages.sh

# 1. Conversations become questions with their history; people's rewrites are the teacher and what is to be beaten.
stage data "1/8 Conversations" "$python" -m examples.prepare_conversations --set "$set" --out "$out/data"
# 2. The passages become a knowledge base behind a live service; the recorded rewrites answer as a rewriter would.
stage index "2/8 Knowledge base" "$python" -m rag.build_index --kb-dir "$set" --out "$out/index" --tenant conversations
serve baseline "http://127.0.0.1:$baseline_port" "$python" -m examples.serve_recorded_baseline \
  --recordings "$out/data/baseline_rewrites.jsonl" --port "$baseline_port"
serve rag "$rag_url" "$python" -m rag.serve --index "$out/index" --port "$rag_port" \
  --rewriter-url "http://127.0.0.1:$baseline_port"
# 3. The batch test asks the service every question and records rewrite and hits.
bvt=("$python" -m data_prep.run_bvt --tenant conversations --rag-url "$rag_url")
stage bvt "3/8 BVT batch test against the live service" "${bvt[@]}" --queries "$out/data/queries_train.jsonl" --out "$out/test_sft.xlsx"
stage bvt_heldout "    the same for the held-out questions" "${bvt[@]}" --queries "$out/data/queries_heldout.jsonl" --out "$out/heldout.xlsx"
# 4. What was recorded becomes training data; relevant passages are known by the qrels.
stage sft_data "4/8 SFT and RL data" "$python" -m data_prep.build_sft --input "$out/test_sft.xlsx" --tenant conversations \
  --out "$out/prepared" --no-augment --seed "$seed"
build_rl=("$python" -m data_prep.build_rl --tenant conversations --out "$out/prepared" --seed "$seed" --qrels "$set/qrels.tsv")
stage rl_data "    RL prompts" "${build_rl[@]}" --input "$out/test_sft.xlsx" --split auto
stage heldout_data "    held-out samples" "${build_rl[@]}" --input "$out/heldout.xlsx" --split test
# 5. The model.
if [ -z "$model" ]; then
  model=outputs/models/smollm2_135m
  stage model "5/8 Model" "$python" -m examples.get_small_model --out "$model"
elif [ -d "$model_folder" ]; then
  model=$model_folder
else
  stage model "5/8 Model" "$python" -m examples.get_small_model --out "$out/model" --hub "$model"
  model=$out/model
fi
recipe=(machine=cpu model=smollm2_135m tenant=conversations recipe.data_dir="$out/prepared" recipe.pretrained="$model"
  "rewriter.tenant.rag.url=$rag_url")
# 6. SFT imitates people. Supervised training has the cores to itself: threads may spin while they wait.
log=(--trainer-log "$out/logs/sft.log" --steps "$sft_steps")
stage sft "6/8 SFT on recorded rewrites" bash recipes/run.sh sft "${recipe[@]}" recipe.machine.env.OMP_WAIT_POLICY=active \
  "recipe.output_dir=$out/sft" "trainer.total_training_steps=$sft_steps" trainer.save_freq=40 trainer.test_freq=40
# 7. RL is paid for the rank at which the service finds the passage, beyond what people's rewrite and the plain question
# reach. No reference model's pass, and no second pass for log-probabilities that the rollout engine has computed already.
log=(--trainer-log "$out/logs/$algorithm.log" --steps "$steps")
stage rl "7/8 Reinforcement learning on live retrieval ($algorithm)" bash recipes/run.sh "$algorithm" "${recipe[@]}" \
  "recipe.output_dir=$out/$algorithm" "recipe.start_from=$out/sft/final" "trainer.total_training_steps=$steps" \
  trainer.save_freq=20 actor_rollout_ref.actor.use_kl_loss=false algorithm.rollout_correction.bypass_mode=true \
  rewriter.reward.length.target=80 rewriter.reward.length.penalty=0.005 rewriter.reward.length.cap=200
# 8. Everyone rewrites the held-out questions, and the live service judges.
log=()
stage evaluate "8/8 Evaluation on held-out conversations" "$python" -m evaluation.compare --test "$out/prepared/rl_test.jsonl" \
  --tenant conversations --rag-url "$rag_url" --recorded "question_and_title=$out/data/question_and_title.jsonl" \
  --model "zero_shot=$model" --model "sft=$out/sft/final" --model "rl=$out/$algorithm/final" --max-new-tokens 48 \
  --out "$out/evaluation" --seed "$seed" --train-log "$out/$algorithm/reward_metrics.jsonl" --costs "$out/costs.json"
"$python" -m evaluation.report --run "$out/evaluation" --train-log "$out/$algorithm/reward_metrics.jsonl" --trainer-log "$out/logs/$algorithm.log"
printf '\nreport   %s\nmetrics  %s\n' "$out/evaluation/report.html" "$out/evaluation/metrics.json"
