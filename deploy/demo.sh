#!/usr/bin/env bash
# The demo from a fresh checkout: a virtual environment in .venv, vajra-edge in it, then `vajra-edge demo`.
#   bash deploy/demo.sh                                a live view; Ctrl-C ends it
#   bash deploy/demo.sh --max-frames 100 --json        100 detection messages as received from the broker, then it ends
# Needs Python 3.10 or newer with pip and venv. PYTHON names another interpreter. Only the demo writes to stdout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "demo.sh: $("$python" --version 2>&1) is too old; set PYTHON to Python 3.10 or newer" >&2
  exit 1
}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv >&2
fi
# Only where the installed set is not the one that pyproject.toml asks for: the second start takes no time.
stamp=.venv/.demo-installed
if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "demo.sh: installing vajra-edge into .venv (once, a minute or two)" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --prefer-binary --editable '.[demo]' >&2
  touch "$stamp"
fi
exec .venv/bin/vajra-edge demo "$@"
