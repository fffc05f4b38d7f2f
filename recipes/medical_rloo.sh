#!/usr/bin/env bash
# Train the medical assistant by RLOO. Any Hydra override may follow, e.g. machine=cpu model=tiny.
exec bash "$(dirname "$0")/run.sh" medical_rloo "$@"
