#!/usr/bin/env bash
# The first quarter of an hour on a GPU; quarter_hour.py says what it does.
#   benchmarks/quarter_hour.sh [--rest] [--small] [--out FOLDER]
# PYTHON names the interpreter: .venv's if there is one. Whatever hangs, 560 seconds is
# the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
exec timeout --kill-after=5 560 "$python" benchmarks/quarter_hour.py "$@"
