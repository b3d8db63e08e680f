#!/bin/sh
# Gathers the wheels of deploy/image.lock in deploy/compose/wheels, hashes checked, with the pip of
# this machine and its configuration, so that building the image needs no index.
# Usage: wheels.sh [python]
set -eu
python=${1:-python3}
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
cd "$(dirname "$0")"
machine=$(uname -m)
mark=$(sha256sum <../image.lock)
if [ "$(cat wheels/made-from 2>/dev/null)" = "$mark" ]; then exit 0; fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "wheels: no pip here; the build of the image fetches the packages itself"
    exit 0
fi
echo "wheels: gathering the packages of the image ..."
set --
for minor in $(seq 36 -1 17); do set -- "$@" --platform "manylinux_2_${minor}_$machine"; done
for old in manylinux2014 manylinux2010 manylinux1 linux; do set -- "$@" --platform "${old}_$machine"; done
rm -rf wheels
mkdir wheels
"$python" -m pip download -qq --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
    "$@" --dest wheels --requirement ../image.lock
printf '%s' "$mark" >wheels/made-from
