#!/usr/bin/env bash
# Train fivedoctors by GRPO. Any Hydra override may follow, e.g. machine=cpu model=tiny.
exec bash "$(dirname "$0")/run.sh" grpo tenant=fivedoctors "$@"
