#!/usr/bin/env bash
# Distil the recorded rewrites of zlkt into the small model. Any Hydra override may follow.
exec bash "$(dirname "$0")/run.sh" zlkt_sft "$@"
