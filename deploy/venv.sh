#!/bin/sh
# Makes or refreshes the virtual environment from a lock file, hashes checked.
# Usage: venv.sh DIRECTORY requirements.lock|requirements-dev.lock [python]
# The environment is made anew when the lock file, pyproject.toml or the Python changes.
set -eu
cd "$(dirname "$0")/.."
venv=$1
lock=$2
python=${3:-python3}

fail() {
    echo "make: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python not found: install Python 3.11 or newer \
(Debian, Ubuntu: apt-get install python3 python3-venv) or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$("$python" --version) is not supported: Python 3.11 to 3.13 is; name one with PYTHON=..."

wanted=$("$python" --version; cat "$lock" pyproject.toml | sha256sum; pwd)
if [ -f "$venv/.made-from-$lock" ] && [ "$(cat "$venv/.made-from-$lock")" = "$wanted" ]; then
    exit 0
fi
# An environment of development holds everything that running needs.
if [ "$lock" = requirements.lock ] && [ -f "$venv/.made-from-requirements-dev.lock" ]; then
    exec "$0" "$venv" requirements-dev.lock "$python"
fi

"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "this Python cannot make virtual \
environments: apt-get install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
echo "Making the virtual environment $venv from $lock ..."
rm -rf "$venv"
"$python" -m venv "$venv" || fail "could not make $venv: apt-get install python3-venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip install --require-hashes --only-binary :all: -r "$lock" ||
    fail "pip could not install what $lock names (see above); it needs the network once"
$pip install --no-deps --no-build-isolation --no-index --editable .
printf '%s' "$wanted" >"$venv/.made-from-$lock"
