#!/bin/sh
# Restores what backup.sh wrote into a stack that has no volumes yet, and starts it.
# Usage: restore.sh DIRECTORY
set -eu
source=$(cd "${1:?usage: restore.sh DIRECTORY}" && pwd)
[ -s "$source/complete" ] || {
    echo "restore: $source is no complete back-up" >&2
    exit 1
}
cd "$(dirname "$0")/.."
compose=./compose/compose.sh

[ -e .env ] || cp -p "$source/env" .env
if [ ! -e secrets ]; then cp -Rp "$source/secrets" secrets; fi
$compose build
echo "restore: directory"
$compose run --rm -T --no-deps ldap start restore <"$source/directory.ldif"
echo "restore: objects"
$compose run --rm -T --no-deps scp tar -C /data -xpf - <"$source/data.tar"
echo "restore: database"
$compose up -d postgres
./compose/wait.sh 120
$compose exec -T postgres pg_restore -h /run/dicomq -U postgres --dbname=dicomq --exit-on-error \
    --single-transaction <"$source/database.dump"
exec ./compose/up.sh
