#!/bin/sh
# Starts Redis with the password of the secret. It holds hints that the ledger can repeat: nothing
# is written to disk.
set -eu
umask 077
cat >/run/dicomq/redis.conf <<END
bind * -::*
port 6379
requirepass $(cat /run/secrets/redis_password)
save ""
appendonly no
maxmemory-policy noeviction
dir /run/dicomq
END
exec redis-server /run/dicomq/redis.conf
