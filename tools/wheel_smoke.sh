#!/bin/bash
# Installs dist/*.whl into an empty virtual environment, away from the source tree, and proxies a request with it.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
EMPTY=$(mktemp -d)
trap 'rm -rf "$EMPTY"' EXIT
WHEELS=("$ROOT"/dist/meshcore-*.whl)
[ ${#WHEELS[@]} = 1 ] && [ -e "${WHEELS[0]}" ] || { echo "expected one wheel in dist/: run make dist" >&2; exit 1; }

"$ROOT/.venv/bin/python" -m venv "$EMPTY/venv"
"$EMPTY/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    -c "$ROOT/tools/constraints.txt" "${WHEELS[0]}"
cd "$EMPTY"
exec_python=("$EMPTY/venv/bin/python" -I "$ROOT/tools/first_request.py" "$EMPTY/venv/bin/meshproxy")
timeout 60 "${exec_python[@]}"
