#!/bin/sh
# Backs the running stack up. Usage: backup.sh DIRECTORY (a new one)
#
# The database before the files: files are written before their rows and never changed, so every row
# of the dump finds its file in what is copied after it. The other way round, rows would come without
# files. Do not purge studies meanwhile.
set -eu
target=${1:?usage: backup.sh DIRECTORY}
umask 077
mkdir "$target"
target=$(cd "$target" && pwd)
cd "$(dirname "$0")/.."
compose=./compose/compose.sh

echo "backup: configuration and secrets"
cp -p .env "$target/env"
cp -Rp secrets "$target/secrets"
echo "backup: database"
$compose exec -T postgres pg_dump -h /run/dicomq -U postgres --format=custom dicomq >"$target/database.dump"
echo "backup: directory"
$compose exec -T ldap slapcat -f /run/dicomq/slapd.conf >"$target/directory.ldif"
echo "backup: objects"
$compose run --rm -T --no-deps scp tar -C /data -cf - . >"$target/data.tar"
# An end that is not written is a back-up that is not whole.
date -u +%Y-%m-%dT%H:%M:%SZ >"$target/complete"
du -sh "$target"
