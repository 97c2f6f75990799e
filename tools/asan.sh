#!/bin/bash
# Runs the suite against a build with AddressSanitizer and UndefinedBehaviorSanitizer. Arguments go to pytest.
#
# The instrumented module lives in a copy of the tree (.ci-build/asan/src), because its file has the same name as
# the ordinary one. The runtime must be in the process first. Preloading it would reach every program that the
# tests start (curl deadlocks under it), so a ten-line interpreter is linked with it instead: libpython and the
# sanitizers, in a virtual environment that borrows the packages of .venv.
#   detect_leaks=0            CPython frees little at exit; the engine's own memory is counted by tests instead
#   PYTHONMALLOC=malloc       Python's arenas would hide an overflow of a buffer that came from Python
# No finding is suppressed: there is no suppression file. The first one needs a reason beside it, here.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
TREE=$ROOT/.ci-build/asan
BASE=$ROOT/.venv/bin/python

compile() {
    echo "--> $1" >&2
    shift
    "$@" >"$TREE/build.log" 2>&1 || { tail -n 40 "$TREE/build.log" >&2; exit 1; }
}

link_interpreter() {
    local source=$TREE/interpreter.c
    rm -rf "$TREE/venv"
    "$BASE" -m venv --without-pip "$TREE/venv"
    printf '%s\n' '#include <Python.h>' 'int main(int argc, char** argv) { return Py_BytesMain(argc, argv); }' >"$source"
    rm -f "$TREE"/venv/bin/python*
    # shellcheck disable=SC2046  # a list of compiler arguments
    gcc -g -fsanitize=address,undefined "$source" -o "$TREE/venv/bin/python" $("$BASE" - <<'PY'
import sysconfig
var = sysconfig.get_config_var
library = f"python{var('LDVERSION')}"
print(f"-I{var('INCLUDEPY')} -L{var('LIBPL')} -L{var('LIBDIR')} -Wl,-rpath,{var('LIBDIR')} {var('LINKFORSHARED')}",
      f"-l{library} {var('LIBS')} {var('SYSLIBS')} -lm")
PY
    ) || return 1
    "$BASE" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$(echo "$TREE"/venv/lib/python3*/site-packages)/borrowed.pth"
    local script
    for script in meshproxy pytest; do
        sed "1s|.*|#!$TREE/venv/bin/python|" "$ROOT/.venv/bin/$script" >"$TREE/venv/bin/$script"
        chmod +x "$TREE/venv/bin/$script"
    done
}

mkdir -p "$TREE"
PYTHON_IS=$("$BASE" -c 'import os, sys; print(sys.version, os.path.realpath(sys.executable), sys.prefix)')
if [ "$(cat "$TREE/interpreter.stamp" 2>/dev/null)" != "$PYTHON_IS" ]; then
    compile "linking an interpreter with the sanitizers" link_interpreter
    echo "$PYTHON_IS" >"$TREE/interpreter.stamp"
    rm -f "$TREE/module.stamp"
fi

HASH=$({ find meshcore -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' | LC_ALL=C sort; echo setup.py; } |
    xargs sha256sum | sha256sum | cut -c1-16)
rm -rf "$TREE/src"
mkdir "$TREE/src"
# The working tree as it is, committed or not, less what was built in it.
tar --exclude='./.git' --exclude='./.venv*' --exclude='./.ci-build' --exclude='*.so' --exclude='./build' \
    --exclude='./dist' --exclude='*.egg-info' --exclude='./.demo' --exclude='__pycache__' \
    --exclude='./meshcore/_fastpath.c' -cf - . | tar -xf - -C "$TREE/src"
cd "$TREE/src"
if [ "$(cat "$TREE/module.stamp" 2>/dev/null)" = "$HASH" ]; then
    cp "$TREE"/keep/_fastpath*.so meshcore/
else
    rm -rf "$TREE/keep" && mkdir "$TREE/keep"
    compile "compiling meshcore._fastpath with the sanitizers" \
        env MESHCORE_ASAN=1 "$BASE" setup.py build_ext --inplace --build-temp "$TREE/temp"
    cp meshcore/_fastpath*.so "$TREE/keep/"
    echo "$HASH" >"$TREE/module.stamp"
fi

export PYTHONPATH=$TREE/src PYTHONMALLOC=malloc MESHCORE_ASAN=1
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

# A suite that silently ran the ordinary module would prove nothing.
"$TREE/venv/bin/python" - <<'PY'
import os, sys, meshcore._fastpath as module
assert module.__file__.startswith(os.environ["PYTHONPATH"]), module.__file__
assert b"__asan_init" in open(module.__file__, "rb").read(), "the module is not instrumented"
assert "/asan/venv/" in sys.executable, sys.executable
PY
exec "$TREE/venv/bin/python" -m pytest -o cache_dir="$TREE/cache" "$@"
