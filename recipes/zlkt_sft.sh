#!/usr/bin/env bash
# Distil the 32B's rewrites for zlkt (SFT). Any Hydra override may follow, e.g. machine=cpu model=tiny.
exec bash "$(dirname "$0")/run.sh" sft tenant=zlkt "$@"
