#!/bin/sh
# Waits until every container of the stack that has a health check is healthy. Usage: wait.sh SECONDS
# Docker makes the first check after a whole interval; here each container is checked at once.
set -eu
cd "$(dirname "$0")/.."
end=$(($(date +%s) + $1))
passed=$(mktemp -d)
trap 'rm -rf "$passed"' EXIT
state() {
    # shellcheck disable=SC2046 # one word per container
    docker inspect -f '{{.ID}}.{{.State.Pid}} {{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' \
        $(./compose/compose.sh ps -a -q)
}
check() { # ID.PID of a container whose first check is to come: a file tells that it passed
    id=${1%.*} mark=$passed/$1
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done <<END
$(docker inspect -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$id")
END
    case $1 in CMD) shift ;; *) set -- sh -c "$2" ;; esac
    if timeout 60 docker exec "$id" "$@" >/dev/null 2>&1 </dev/null; then : >"$mark"; fi
}
waiting() {
    state | grep -v -e ' running healthy$' -e 'migrate.* exited' -e ' running $' |
        while read -r process name status; do
            [ -e "$passed/$process" ] || echo "$process ${name#/} $status"
        done
}
while left=$(waiting) && [ -n "$left" ]; do
    if [ "$(date +%s)" -ge "$end" ]; then
        printf 'not healthy after %s s:\n%s\nsee `make logs`\n' "$1" "$(echo "$left" | cut -d ' ' -f 2-)" >&2
        exit 1
    fi
    for process in $(echo "$left" | sed -n 's/ .* running starting$//p'); do check "$process" & done
    wait
    sleep 1
done
