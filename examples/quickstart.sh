#!/usr/bin/env bash
# The whole flow on a CPU: knowledge base, BVT batch test, SFT, reinforcement learning on live retrieval, report.
#
#   bash examples/quickstart.sh                  the sample tenant: about 9 minutes on two cores after installation
#   bash examples/quickstart.sh --beir DIR       your own retrieval set in BEIR layout: about two hours
#
# Options:
#   --out DIR           where everything goes (default outputs/quickstart; a second run resumes there)
#   --steps N           reinforcement-learning steps (default 120; 300 of grpo with --beir)
#   --algorithm A       grpo (default), rloo or ppo (with a critic)
#   --sft-epochs N      passes over the distillation data
#   --hidden N          width of the tiny model, a multiple of 32; of 64 with --beir
#   --layers N          its depth
#   --words N           words that get a token of their own beside the characters
#   --warm-up-tasks N   with --beir: a warm-up SFT on patched-together stories, rewritten as the baseline would,
#                       before distillation (default 160000; 0: none)
#   --without-qrels     train without known passages: a small cross-encoder, made in the run from simulated customers'
#                       clicks, judges the hits; the qrels tell the customers what they look for, and the evaluation
#   --judge R           with --without-qrels: the cross-encoder R judges instead (a folder that reranker.train made, or
#                       URL#model); the qrels serve the held-out evaluation alone
#   --rag-port P        port of the retrieval service (default 8000)
#   --baseline-port P   port of the recorded 32B baseline (default 7861)
#   --seed N            of data, model and evaluation (default 0)
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/.."

out=outputs/quickstart beir="" steps="" algorithm=grpo sft_epochs="" hidden="" layers="" words="" warm_up_tasks="" without_qrels="" judge=""
rag_port=8000 baseline_port=7861 seed=0
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --without-qrels) without_qrels=yes; shift ;;
    --out | --beir | --steps | --algorithm | --sft-epochs | --hidden | --layers | --words | --warm-up-tasks | --judge | --rag-port | --baseline-port | --seed)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      name=${1#--}; declare "${name//-/_}=$2"; shift 2 ;;
    *) echo "error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
case $algorithm in grpo | rloo | ppo) ;; *) echo "error: --algorithm $algorithm: grpo, rloo or ppo" >&2; exit 2 ;; esac
# Paths are the caller's.
[ "$out" = outputs/quickstart ] || [ "${out#/}" != "$out" ] || out=$caller/$out
[ -z "$beir" ] || [ "${beir#/}" != "$beir" ] || beir=$caller/$beir
if [ -n "$judge" ]; then
  [ -n "$without_qrels" ] || { echo "error: --judge needs --without-qrels" >&2; exit 2; }
  case $judge in
    http://*#* | https://*#* | logits:http*#*) ;;
    *)
      [ "${judge#/}" != "$judge" ] || judge=$caller/$judge
      [ -f "$judge/config.json" ] || { echo "error: --judge $judge: no model's folder there" >&2; exit 2; }
      ;;
  esac
fi
[ -z "$beir" ] || [ -f "$beir/corpus.jsonl" ] || { echo "error: --beir $beir: no corpus.jsonl there" >&2; exit 2; }

bash requirements/create_environment.sh
python=$PWD/.venv/bin/python
mkdir -p "$out/logs"
out=$(cd "$out" && pwd)
rag_url=http://127.0.0.1:$rag_port

source examples/stages.sh

if [ -z "$beir" ]; then
  tenant=fivedoctors kb=$out/data hard_share=0.4 held_out_slices=(--held-out-slices unseen_wording) texts=() induction=() prompts_per_update=8 micro_batch=64
  size=(recipe.sft.epochs="${sft_epochs:-8}")
  reward=(rewriter.reward.length.target=12 rewriter.reward.length.penalty=0.02)
  prepare=(-m examples.fivedoctors.generate_sample_data --out "$out/data" --seed "$seed")
else
  tenant=beir kb=$beir hard_share=0 held_out_slices=() texts=("$beir/corpus.jsonl") induction=(--induction-heads)
  # Small micro-batches: stories differ in length, and a micro-batch is filled up to its longest.
  prompts_per_update=16 micro_batch=16
  warm_up_tasks=${warm_up_tasks:-160000} words=${words:-3000} hidden=${hidden:-192} layers=${layers:-4}
  [ "$algorithm" = ppo ] || steps=${steps:-300}
  # A higher rate would undo the warm-up SFT; one of 3e-4 makes reinforcement learning worse.
  if [ "$warm_up_tasks" = 0 ]; then sft_epochs=${sft_epochs:-8} sft_lr=1e-3; else sft_epochs=${sft_epochs:-2} sft_lr=2e-4; fi
  size=(recipe.sft.epochs="$sft_epochs" recipe.sft.micro_batch=8 recipe.sft.lr="$sft_lr"
    recipe.rl.max_new_tokens=40 recipe.rl.actor_lr=5e-5)
  # Keywords leave numbers and negations of a patient's story behind, as the recorded baseline does.
  reward=(rewriter.reward.length.target=30 rewriter.reward.length.cap=36 rewriter.reward.length.penalty=0.02
    'rewriter.reward.gates=[empty,unparseable,template_leak,too_long,judge_addressed]')
  prepare=(-m examples.prepare_beir --beir "$beir" --out "$out/data" --warm-up-tasks "$warm_up_tasks" --seed "$seed")
fi
train_qrels=(--qrels "$kb/qrels.tsv") depth=()
if [ -n "$without_qrels" ]; then
  # Which prompts are hard, only qrels know. Of few candidates: among 30 of the sample's 240 passages the judge finds the
  # right one whatever the rewrite.
  train_qrels=() hard_share=0 depth=(--top-k 5)
fi
# What two cores can afford: 128 rollouts a step.
if [ "$algorithm" != ppo ]; then
  # No reference model's pass, and no second pass for log-probabilities that the rollout engine has computed already
  # (sampling from the whole distribution, the two agree to 0.9999).
  economy=(actor_rollout_ref.actor.use_kl_loss=false algorithm.rollout_correction.bypass_mode=true
    recipe.rl.prompts_per_step=16 recipe.rl.prompts_per_update="$prompts_per_update" recipe.rl.micro_batch="$micro_batch")
else
  economy=(recipe.rl.prompts_per_step=128 recipe.rl.prompts_per_update=64 recipe.rl.micro_batch=64 actor_rollout_ref.actor.ppo_epochs=2
    trainer.critic_warmup=5)
fi
recipe=(machine=cpu model=tiny tenant="$tenant" recipe.data_dir="$out/prepared" recipe.pretrained="$out/tiny"
  "rewriter.tenant.rag.url=$rag_url")
# Supervised training has the cores to itself: threads that spin while they wait save a quarter of a step.
alone=(recipe.machine.env.OMP_WAIT_POLICY=active)

stage data "1/8 Sample data" "$python" "${prepare[@]}"
stage index "2/8 Knowledge base" "$python" -m rag.build_index --kb-dir "$kb" --out "$out/index" --tenant "$tenant"
serve baseline "http://127.0.0.1:$baseline_port" "$python" -m examples.serve_recorded_baseline \
  --recordings "$out/data/baseline_rewrites.jsonl" --port "$baseline_port"
serve rag "$rag_url" "$python" -m rag.serve --index "$out/index" --port "$rag_port" \
  --rewriter-url "http://127.0.0.1:$baseline_port" "${depth[@]}"

bvt=("$python" -m data_prep.run_bvt --tenant "$tenant" --rag-url "$rag_url")
stage bvt "3/8 BVT batch test against the live service" "${bvt[@]}" --queries "$out/data/queries_train.jsonl" --out "$out/test_sft.xlsx"
if [ -n "$without_qrels" ]; then
  if [ -z "$judge" ]; then
    judge=$out/judge/model
    stage clicks "    simulated customers' clicks" "$python" -m examples.simulate_clicks --input "$out/test_sft.xlsx" \
      --qrels "$kb/qrels.tsv" --out "$out/clicks/reranker_pairs.jsonl" --seed "$seed"
    stage encoder "    tiny encoder" "$python" -m examples.make_tiny_encoder --text "$kb/corpus.jsonl" \
      "$out/data/queries_train.jsonl" --out "$out/encoder" --seed "$seed"
    sed "s|OUT|$out|; s|SEED|$seed|" examples/judge.yaml >"$out/judge.yaml"
    stage judge "    cross-encoder, from the clicks" "$python" -m reranker.train --config "$out/judge.yaml"
  fi
  # The running service takes it up.
  stage swap "    the service's reranker" "$python" -m rag.manage_rerankers set --index "$out/index" --tenant "$tenant" --reranker "$judge"
fi
stage bvt_heldout "    the same for the held-out queries" "${bvt[@]}" --queries "$out/data/queries_heldout.jsonl" --out "$out/heldout.xlsx"
stage sft_data "4/8 SFT and RL data" "$python" -m data_prep.build_sft --input "$out/test_sft.xlsx" --tenant "$tenant" --out "$out/prepared" --seed "$seed" \
  --min-top1-score 0 # the lexical scorer finds nothing of a "how do I take it" in its passage: it cannot choose here
build_rl=("$python" -m data_prep.build_rl --tenant "$tenant" --out "$out/prepared" --seed "$seed")
stage rl_data "    RL prompts" "${build_rl[@]}" --input "$out/test_sft.xlsx" "${train_qrels[@]}" --split auto --hard-share "$hard_share"
stage heldout_data "    held-out samples" "${build_rl[@]}" --input "$out/heldout.xlsx" --qrels "$kb/qrels.tsv" --split test
stage model "5/8 Tiny model" "$python" -m examples.make_tiny_model --tenant "$tenant" --out "$out/tiny" --seed "$seed" \
  --text "$out/data/queries_train.jsonl" "$out/data/baseline_rewrites.jsonl" "${texts[@]}" \
  --words "${words:-0}" --hidden "${hidden:-128}" --layers "${layers:-3}" "${induction[@]}"
if [ -n "$beir" ] && [ "$warm_up_tasks" != 0 ]; then
  stage warm_up_data "    warm-up tasks" "$python" -m data_prep.build_sft --input "$out/data/warm_up_tasks.jsonl" \
    --tenant "$tenant" --out "$out/warm_up" --no-augment --seed "$seed"
  log=(--trainer-log "$out/logs/warm_up.log")
  stage warm_up "    warm-up SFT" bash recipes/run.sh sft "${recipe[@]}" "${alone[@]}" "recipe.data_dir=$out/warm_up" \
    "recipe.output_dir=$out/warm_up/model" trainer.save_freq=500 recipe.sft.epochs=1 \
    recipe.sft.batch=32 recipe.sft.micro_batch=8 recipe.sft.lr=1e-3
  recipe+=("recipe.pretrained=$out/warm_up/model/final")
fi
log=(--trainer-log "$out/logs/sft.log")
stage sft "6/8 Distillation: the recorded rewrites teach the tiny model" bash recipes/run.sh sft "${recipe[@]}" "${alone[@]}" \
  "recipe.output_dir=$out/sft" trainer.save_freq=50 trainer.test_freq=50 "${size[@]}"
log=(--trainer-log "$out/logs/$algorithm.log" --steps "${steps:-120}")
stage rl "7/8 Reinforcement learning on live retrieval ($algorithm)" bash recipes/run.sh "$algorithm" "${recipe[@]}" \
  "recipe.output_dir=$out/$algorithm" "recipe.start_from=$out/sft/final" "trainer.total_training_steps=${steps:-120}" \
  "trainer.save_freq=25" "${size[@]}" "${reward[@]}" "${economy[@]}"
log=()
stage evaluate "8/8 Evaluation on held-out queries" "$python" -m evaluation.compare --test "$out/prepared/rl_test.jsonl" --tenant "$tenant" \
  --rag-url "$rag_url" --model "sft=$out/sft/final" --model "rl=$out/$algorithm/final" --out "$out/evaluation" --seed "$seed" \
  --train-log "$out/$algorithm/reward_metrics.jsonl" --costs "$out/costs.json" "${held_out_slices[@]}"
"$python" -m evaluation.report --run "$out/evaluation" --train-log "$out/$algorithm/reward_metrics.jsonl" --trainer-log "$out/logs/$algorithm.log"
printf '\nreport   %s\nmetrics  %s\n' "$out/evaluation/report.html" "$out/evaluation/metrics.json"
