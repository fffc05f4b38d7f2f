#!/usr/bin/env bash
# Distil the recorded rewrites of chengla into the small model. Any Hydra override may follow.
exec bash "$(dirname "$0")/run.sh" chengla_sft "$@"
