#!/usr/bin/env bash
# Train zlkt by PPO. Any Hydra override may follow, e.g. machine=cpu model=tiny.
exec bash "$(dirname "$0")/run.sh" ppo tenant=zlkt "$@"
