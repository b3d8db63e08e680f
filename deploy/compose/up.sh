#!/bin/sh
# Builds the images, starts the stack (or brings it to the present release) and waits until every
# service is healthy. Usage: up.sh [options of `docker compose up`, such as --scale export=3]
set -eu
cd "$(dirname "$0")/.."
compose=./compose/compose.sh
[ -e .env ] || cp env.example .env
./compose/secrets.sh
./compose/wheels.sh "${PYTHON:-python3}"
$compose build
$compose up -d --remove-orphans "$@"
./compose/wait.sh "${WAIT_S:-300}"
# The containers of the previous release are gone: what it could not live with may come.
$compose run --rm -T migrate celery -A workers schema
$compose ps
