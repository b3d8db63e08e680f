#!/bin/sh
# Waits until every container of the stack that has a health check is healthy. Usage: wait.sh SECONDS
set -eu
cd "$(dirname "$0")/.."
end=$(($(date +%s) + $1))
state() {
    # shellcheck disable=SC2046 # one word per container
    docker inspect -f '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' \
        $(./compose/compose.sh ps -a -q) | sed 's|^/||'
}
waiting() { state | grep -v -e ' running healthy$' -e 'migrate.* exited' -e ' running $' || true; }
while left=$(waiting) && [ -n "$left" ]; do
    if [ "$(date +%s)" -ge "$end" ]; then
        printf 'not healthy after %s s:\n%s\nsee `make logs`\n' "$1" "$left" >&2
        exit 1
    fi
    sleep 2
done
