#!/bin/sh
# Makes passwords anew and starts what uses them. Usage: rotate.sh NAME …, for example
# rotate.sh postgres_password redis_password; the names are those of the files in deploy/secrets.
set -eu
[ $# -gt 0 ] || {
    sed -n '2,3s/^# //p' "$0" >&2
    exit 1
}
cd "$(dirname "$0")/.."
compose=./compose/compose.sh
./compose/secrets.sh "$@"
own="scp dispatcher export notify commit retrieve query flower"
for name in "$@"; do
    case $name in
    # servers take the new password when they start; the processes then connect with it
    postgres_password) $compose restart postgres && $compose restart $own ;;
    redis_password) $compose restart redis && $compose restart $own ;;
    # the processes read the file for each connection to the directory
    ldap_admin_password | ldap_reader_password) $compose restart ldap ;;
    flower_login) $compose restart flower ;;
    grafana_password)
        $compose --profile monitoring exec -T grafana grafana cli admin reset-admin-password \
            "$(cat secrets/grafana_password)" >/dev/null
        ;;
    esac
done
exec ./compose/wait.sh "${WAIT_S:-300}"
