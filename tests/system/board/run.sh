#!/usr/bin/env bash
# The emulated board's tests alone, from nothing: makes the machine where it is not made yet, then runs each scenario.
#   bash tests/system/board/run.sh [PYTEST ARGUMENTS]
# Needs root, a Debian host, 4 GB of memory and 6 GB of disk; VENV and PYTHON as for tests/run.sh. The machine is kept
# below BOARD_CACHE (~/.cache/vajra-edge-board).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
exec bash tests/run.sh --all --durations=0 tests/system/board "$@"
