#!/bin/sh
# Starts PostgreSQL: makes the cluster on first start, and gives the role dicomq the password that
# the secret holds now, so that a new password needs a new start and nothing else.
set -eu
umask 077
secret=/run/secrets/postgres_password
password=$(cat "$secret")
case $password in
'' | *[!A-Za-z0-9]*)
    echo "postgres: $secret must hold letters and digits only" >&2
    exit 1
    ;;
esac

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # What an interrupted first start left behind is no database yet.
    rm -rf "$PGDATA.new"
    initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
        --data-checksums --auth-local=peer --auth-host=scram-sha-256 >/dev/null
    printf '%s\n' 'CREATE ROLE dicomq LOGIN;' \
        'CREATE DATABASE dicomq OWNER dicomq;' |
        postgres --single -D "$PGDATA.new" postgres >/dev/null
    mv "$PGDATA.new" "$PGDATA"
fi
# Administrators come through `docker compose exec postgres psql`, everybody else with a password.
cat >"$PGDATA/pg_hba.conf" <<END
local all         postgres peer
local replication postgres peer
host  dicomq      dicomq   all  scram-sha-256
END
printf "ALTER ROLE dicomq PASSWORD '%s';\n" "$password" |
    postgres --single -D "$PGDATA" postgres >/dev/null

exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/run/dicomq \
    -c max_connections="${POSTGRES_MAX_CONNECTIONS:-300}" -c shared_buffers="${POSTGRES_SHARED_BUFFERS:-256MB}" \
    -c log_checkpoints=off "$@"
