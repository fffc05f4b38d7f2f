#!/usr/bin/env bash
# Run one recipe: check it, train with verl's own trainer, merge the last checkpoint into <output>/final.
# usage: recipes/run.sh <recipe> [hydra overrides]     e.g. recipes/run.sh fivedoctors_grpo machine=cpu model=tiny
# exit codes: 2 the recipe cannot run as configured. The run saved itself and stopped, start again to resume:
# 75 the services failed, 76 the judge's budget is spent, 77 a health rule said stop (rewriter.health.stop).
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: recipes/run.sh <recipe> [hydra overrides]" >&2
  exit 2
fi
recipe=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)

settings=$("$python" -m recipes.preflight --config-name "$recipe" --shell "$@")
eval "$settings"
if [ "$finished" = yes ]; then
  exit 0
fi
rm -f "$output_dir/stopped.json"
printf '%s\n' "$record" >"$output_dir/run.json.partial" && mv "$output_dir/run.json.partial" "$output_dir/run.json"

if [ "$trainer" = sft ]; then
  launch=("$python" -m torch.distributed.run --standalone --nproc_per_node="$gpus" -m verl.trainer.sft_trainer)
else
  launch=("$python" -m verl.trainer.main_ppo)
fi

# The trainer runs in its own process group, so that Ctrl-C or a kill of this script ends all of its processes.
set -m
"${launch[@]}" --config-path "$root/recipes/config" --config-name "$recipe" "$@" "${computed[@]}" &
child=$!
set +m
stop_trainer() {
  trap "" INT TERM
  kill -TERM -- -"$child" 2>/dev/null || true
  # torchrun's workers live in sessions of their own: only torchrun itself can end them, and it takes its time.
  for _ in $(seq 60); do
    kill -0 "$child" 2>/dev/null || break
    sleep 0.5
  done
  kill -KILL -- -"$child" 2>/dev/null || true
  exit 130
}
trap stop_trainer INT TERM
status=0
wait "$child" || status=$?
trap - INT TERM
if [ -f "$output_dir/stopped.json" ]; then
  exec "$python" - "$output_dir/stopped.json" <<'PYTHON'
import json, sys
stop = json.load(open(sys.argv[1], encoding="utf-8"))
print("stopped:", stop["message"], file=sys.stderr)
sys.exit({"services_unavailable": 75, "budget_spent": 76, "unhealthy": 77}[stop["reason"]])
PYTHON
fi
[ "$status" -eq 0 ] || exit "$status"

if [ "$trainer" = rl ] && [ "$steps_per_epoch" -gt 0 ]; then
  # The names people look for, beside the trainer's own.
  for step in "$output_dir"/global_step_*; do
    n=${step##*_}
    [ $((n % steps_per_epoch)) -ne 0 ] || ln -sfn "global_step_$n" "$output_dir/checkpoint_epoch$((n / steps_per_epoch))"
  done
fi
"$python" -m export.merge --checkpoint "$output_dir" --out "$output_dir/final"
cp "$output_dir/run.json" "$output_dir/final/run.json"
