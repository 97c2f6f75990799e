#!/bin/bash
# Regenerates the Python code of meshcore/api/*.proto, in place or below a folder given as argument. Needs `tools/setup.sh test`.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=${1:-.}
.venv/bin/python -m grpc_tools.protoc -I. --python_out="$TARGET" --grpc_python_out="$TARGET" meshcore/api/*.proto
# A file without a service gets a gRPC module with nothing in it.
for file in meshcore/api/*.proto; do
    grep -q '^service ' "$file" || rm -f "$TARGET/${file%.proto}_pb2_grpc.py"
done
