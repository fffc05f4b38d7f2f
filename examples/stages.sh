# Shell functions of the examples' stories; sourced, never run. Needs: python (an interpreter), out (an existing folder).
# A story stops its services and the running stage when it ends, however it ends.
services=()
current=""
log=() # options of examples.run_stage for the next stages
stop_services() { for pid in $current "${services[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap stop_services EXIT
trap 'exit 130' INT TERM

stage() { # stage NAME TITLE COMMAND...: run in the foreground, with its cost recorded
  local name=$1 title=$2
  shift 2
  printf '\n\033[1m%s\033[0m\n' "$title"
  "$python" -m examples.run_stage --name "$name" --costs "$out/costs.json" "${log[@]}" -- "$@" &
  # In the background and waited for: bash acts on a signal at once only while it waits.
  current=$!
  wait "$current"
  current=""
}
serve() { # serve NAME URL COMMAND...: start in the background and wait until it answers
  local name=$1 url=$2
  shift 2
  "$@" >"$out/logs/$name.log" 2>&1 &
  local pid=$!
  services+=("$pid")
  for _ in $(seq 300); do
    if "$python" -c "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)" "$url/healthz" 2>/dev/null; then
      # A stranger may answer on a port that ours could not have.
      kill -0 "$pid" 2>/dev/null && return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.3
  done
  echo "error: $name did not start: $(tail -1 "$out/logs/$name.log")" >&2
  exit 1
}
