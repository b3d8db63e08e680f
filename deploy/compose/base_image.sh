#!/bin/sh
# Makes the image dicomq-base:bookworm with debootstrap, for machines that reach a Debian mirror but
# no registry. Needs root and debootstrap; the result is kept in the user's cache.
# Then: BASE_IMAGE=dicomq-base:bookworm in deploy/.env
set -eu
tag=dicomq-base:bookworm
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dicomq
archive=$cache/base-bookworm.tar
mkdir -p "$cache"
if [ ! -s "$archive" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >"$work/log" 2>&1 || {
        tail -n 5 "$work/log" >&2
        exit 1
    }
    tar -C "$work/root" --numeric-owner -cf "$archive.new" .
    mv "$archive.new" "$archive"
fi
docker image inspect "$tag" >/dev/null 2>&1 || docker import "$archive" "$tag" >/dev/null
echo "$tag"
