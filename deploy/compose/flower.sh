#!/bin/sh
# Starts Flower with the login of the secret, one user:password per line.
set -eu
FLOWER_BASIC_AUTH=$(tr '\n' ',' </run/secrets/flower_login | sed 's/,*$//')
export FLOWER_BASIC_AUTH
exec celery -A workers flower --address=0.0.0.0 --port=5555 --max-tasks=20000 "$@"
