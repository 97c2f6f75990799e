#!/bin/bash
# Runs the suite against a build with AddressSanitizer and UndefinedBehaviorSanitizer. Arguments go to pytest.
#
# The instrumented module lives in a copy of the tree (.ci-build/asan), because its file has the same name as
# the ordinary one. Python itself is not instrumented, so the runtime is preloaded, and:
#   detect_leaks=0          CPython frees little at exit; the engine's own memory is counted by tests instead
#   PYTHONMALLOC=malloc     Python's arenas would hide an overflow of a buffer that came from Python
#   verify_asan_link_order  off: programs that the tests start (nginx, curl) inherit the preload
# No finding is suppressed: there is no suppression file. A new one needs a reason beside it, here.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
TREE=$ROOT/.ci-build/asan
PYTHON=$ROOT/.venv/bin/python

mkdir -p "$TREE"
HASH=$({ find meshcore -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' | LC_ALL=C sort; echo setup.py; } |
    xargs sha256sum | sha256sum | cut -c1-16)
rm -rf "$TREE/src"
mkdir "$TREE/src"
# The working tree as it is, committed or not, less what was built in it.
tar --exclude='./.git' --exclude='./.venv*' --exclude='./.ci-build' --exclude='*.so' --exclude='./build' \
    --exclude='./dist' --exclude='*.egg-info' --exclude='./.demo' --exclude='__pycache__' \
    --exclude='./meshcore/_fastpath.c' -cf - . | tar -xf - -C "$TREE/src"
cd "$TREE/src"
if [ "$(cat "$TREE/stamp" 2>/dev/null)" = "$HASH" ]; then
    cp "$TREE"/keep/_fastpath*.so meshcore/
else
    echo "--> compiling meshcore._fastpath with the sanitizers" >&2
    rm -rf "$TREE/keep" && mkdir "$TREE/keep"
    if ! MESHCORE_ASAN=1 "$PYTHON" setup.py build_ext --inplace --build-temp "$TREE/temp" >"$TREE/build.log" 2>&1; then
        tail -n 40 "$TREE/build.log" >&2
        exit 1
    fi
    cp meshcore/_fastpath*.so "$TREE/keep/"
    echo "$HASH" >"$TREE/stamp"
fi

export PYTHONPATH=$TREE/src PYTHONMALLOC=malloc MESHCORE_ASAN=1
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"

# A suite that silently ran the ordinary module would prove nothing.
LD_PRELOAD=$PRELOAD "$PYTHON" - <<'PY'
import os, meshcore._fastpath as module
assert module.__file__.startswith(os.environ["PYTHONPATH"]), module.__file__
assert b"__asan_init" in open(module.__file__, "rb").read(), "the module is not instrumented"
PY
LD_PRELOAD=$PRELOAD exec "$PYTHON" -m pytest -p no:cacheprovider "$@"
