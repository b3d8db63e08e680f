#!/bin/sh
# Makes the secrets that are missing in deploy/secrets. Usage: secrets.sh [name …]; a password that
# is named is made anew, with what follows from it.
#
# The directory is for its owner alone (0700). The files in it are readable (0444) because each is
# mounted alone into containers that run as other users than the owner.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets
chmod 700 secrets

write() { # name: the value comes from standard input; in place, because containers hold the file
    if [ -e "secrets/$1" ]; then chmod 600 "secrets/$1"; fi
    cat >"secrets/$1"
    chmod 444 "secrets/$1"
}
random() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32; }

for name in "$@"; do
    case $name in
    postgres_password | redis_password | ldap_admin_password | ldap_reader_password | \
        flower_login | grafana_password) ;;
    *)
        echo "secrets: $name is none of the passwords" >&2
        exit 1
        ;;
    esac
done
for name in postgres_password redis_password ldap_admin_password ldap_reader_password grafana_password; do
    case " $* " in
    *" $name "*) random | write $name ;;
    *) [ -s secrets/$name ] || random | write $name ;;
    esac
done
case " $* " in
*" flower_login "*) echo "admin:$(random)" | write flower_login ;;
*) [ -s secrets/flower_login ] || echo "admin:$(random)" | write flower_login ;;
esac
# Addresses follow from passwords unless somebody named servers of their own.
own() { [ -s "secrets/$1" ] && ! grep -q "@$2" "secrets/$1"; }
own database_url postgres/ ||
    echo "postgresql://dicomq:$(cat secrets/postgres_password)@postgres/dicomq" | write database_url
own redis_url redis: || echo "redis://:$(cat secrets/redis_password)@redis:6379/0" | write redis_url
