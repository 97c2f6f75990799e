#!/bin/bash
# Installs what one task needs: Debian packages, .venv, the compiled package. Runs nothing of the product itself.
#
#   tools/setup.sh [run|mesh|test|bench|dist]     default: run; mesh: what a control plane and sidecars need too
#
# Idempotent: what is there is reused, and only what changed is rebuilt (by content, not by date).
# As root it installs missing Debian packages; otherwise it prints the exact line and goes on when it can.
# PYTHON=/path/to/python3 chooses the interpreter for a new .venv.
set -euo pipefail

GROUP=${1:-run}
case $GROUP in run|mesh|test|bench|dist) ;; *) echo "usage: $0 [run|mesh|test|bench|dist]" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
ROOT=$PWD
VENV=$ROOT/.venv
LOG=$ROOT/.ci-build/setup.log
mkdir -p "$ROOT/.ci-build"

# Two makes in one clone wait for each other instead of building into the same folder.
exec 9<"$ROOT/tools/setup.sh"
flock 9

say() { printf '%s %s\n' "-->" "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Runs quietly; on failure shows the end of what it said.
quietly() {
    "$@" >"$LOG" 2>&1 </dev/null && return 0
    tail -n 40 "$LOG" >&2
    die "this failed: $*   (all of its output: $LOG)"
}

# Echoes the first interpreter that can make a virtual environment and compile an extension.
# Names are tried by running them: a pyenv shim exists for versions that are not selected.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 /usr/bin/python3}; do
        "$candidate" - <<'PY' 2>/dev/null && return 0
import os, sys, sysconfig
import ensurepip, venv
assert sys.version_info >= (3, 11)
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
print(sys.executable)
PY
    done
    return 1
}

missing_packages() {
    command -v gcc >/dev/null && echo '#include <stdint.h>' | gcc -E - >/dev/null 2>&1 || echo gcc libc6-dev
    command -v make >/dev/null || echo make
    echo '#include <openssl/ssl.h>' | gcc -E - >/dev/null 2>&1 || echo libssl-dev
    find_python >/dev/null || echo python3 python3-venv python3-dev
    case $GROUP in
        test)
            have nginx || echo nginx-light; have curl || echo curl; have h2load || echo nghttp2-client
            have nghttpd || echo nghttp2-server; have nghttpx || echo nghttp2-proxy
            # For the scenarios between network namespaces; without them, or without root, these are skipped.
            have ip || echo iproute2; have setpriv || echo util-linux; have nft || echo nftables
            have iptables || echo iptables; have tcpdump || echo tcpdump
            have openssl || echo openssl; have etcd || echo etcd-server; have nsd || echo nsd
            have prometheus || echo prometheus
            have java && [ -e /usr/share/java/zookeeper.jar ] || echo default-jre-headless libzookeeper-java
            have psql || echo postgresql-client; have_postgres || echo postgresql
            ;;
        bench)
            have nginx || echo nginx-light; have haproxy || echo haproxy; have strace || echo strace
            have h2load || echo nghttp2-client; have nghttpd || echo nghttp2-server
            echo '#include <openssl/ssl.h>' | gcc -E - >/dev/null 2>&1 || echo libssl-dev
            ;;
    esac
}

# Debian keeps PostgreSQL's server programs, one folder a version, off everybody's PATH.
have_postgres() { have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }

# Daemons live in sbin, which is not on every user's PATH.
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# Installs without starting anything: the suite and the bench run nginx and HAProxy on their own ports,
# and nobody who types `make test` wants a web server on port 80.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made_policy=
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=yes
        # shellcheck disable=SC2064  # expanded now on purpose
        trap "rm -f '$policy'" EXIT
    fi
    quietly apt-get update
    quietly apt-get install -y --no-install-recommends "$@"
    if [ -n "$made_policy" ]; then rm -f "$policy"; trap - EXIT; fi
}

system_packages() {
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing Debian packages: $missing"
        # shellcheck disable=SC2086  # a list of package names
        apt_install $missing
    else
        say "missing here; as root, run:  apt-get update && apt-get install -y --no-install-recommends $missing"
        find_python >/dev/null && command -v gcc >/dev/null ||
            die "a C compiler and Python >= 3.11 with venv and headers are needed to go on"
        say "going on without: what needs them is skipped"
    fi
}

# What the compiled module is made of. A change in a .py file needs no build: the install is editable.
# MESHCORE_DEBUG=1 is part of it: asking for a debug build, or no longer asking, rebuilds.
source_hash() {
    { echo "debug=${MESHCORE_DEBUG:-}" >.ci-build/mode; echo .ci-build/mode
      find meshcore -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' | LC_ALL=C sort
      echo setup.py; echo pyproject.toml; } | xargs sha256sum | sha256sum | cut -c1-16
}

depends_hash() { sha256sum pyproject.toml tools/constraints.txt | sha256sum | cut -c1-16; }

stamped() { [ "$(cat "$VENV/.stamp-$1" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$VENV/.stamp-$1"; }

# Safety: a .venv whose interpreter is gone, or that was copied from another folder, is made anew.
virtual_environment() {
    local python
    if stamped place "$VENV" && "$VENV/bin/python" -c 'import pip' 2>/dev/null; then return 0; fi
    python=$(find_python) || die "no Python >= 3.11 with venv and headers found"
    say "creating .venv with $("$python" -V)"
    rm -rf "$VENV"
    quietly "$python" -m venv "$VENV"
    stamp place "$VENV"
}

pip_install() {
    quietly "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        -c tools/constraints.txt "$@"
}

python_packages() {
    local extras= wanted
    wanted=$(depends_hash)
    if ! stamped run "$wanted"; then
        say "installing the build tools and meshcore with its dependencies"
        pip_install setuptools Cython
        pip_install --no-build-isolation -e .
        rm -f "$VENV"/.stamp-{test,bench,dist}
        stamp build "$(source_hash)"
        stamp run "$wanted"
    fi
    [ "$GROUP" = run ] || extras=$GROUP
    if [ -n "$extras" ] && ! stamped "$extras" "$wanted"; then
        say "installing what the ${extras} needs"
        # The names are read from pyproject.toml, so that no second list can drift.
        "$VENV/bin/python" - "$extras" >"$VENV/.wants" <<'PY'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
# The tests run the control plane too.
for name in {"test": ("test", "mesh")}.get(sys.argv[1], (sys.argv[1],)):
    print(*extras[name], sep="\n")
PY
        pip_install -r "$VENV/.wants"
        stamp "$extras" "$wanted"
    fi
}

compiled_module() {
    local wanted
    wanted=$(source_hash)
    if stamped build "$wanted" && "$VENV/bin/python" -c 'import meshcore._fastpath' 2>/dev/null; then return 0; fi
    say "compiling meshcore._fastpath (about a minute)"
    quietly env CYTHON_FORCE_REGEN=1 "$VENV/bin/python" setup.py build_ext --inplace --force
    stamp build "$wanted"
}

# A home that cannot be written to must not make pip complain on each line.
[ -w "${HOME:-/nonexistent}" ] || export PIP_NO_CACHE_DIR=1

system_packages
virtual_environment
python_packages
compiled_module
