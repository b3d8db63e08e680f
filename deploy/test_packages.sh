#!/bin/sh
# Installs the Debian packages that the tests use, as root or with a sudo that asks no password.
# Usage: test_packages.sh [compose]; with `compose` also those of `make test-compose`.
# What cannot be installed is named; the tests that need it skip with the reason, or fail where
# CI is set. The servers among the packages are not started: the tests start their own.
set -u

missing=""
need() { # package, then programs of which one shows that it is there
    package=$1
    shift
    for program in "$@"; do
        if PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1; then return; fi
    done
    missing="$missing $package"
}
need dcmtk storescp
need slapd slapd
need ldap-utils ldapsearch
need redis-server redis-server valkey-server
need chromium chromium chromium-browser google-chrome
need orthanc Orthanc
need prometheus promtool
need docker-compose docker-compose
need openssl openssl
need faketime faketime
need postgresql pg_lsclusters
for kind in proxy account container object; do need swift-$kind swift-$kind-server; done
if [ "${1:-}" = compose ]; then
    need docker.io dockerd
    need debootstrap debootstrap
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    as_root=none
fi
if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
    echo "test: missing$missing; tests that need them are skipped." \
        "Install them: apt-get install$missing" >&2
    exit 0
fi

echo "test: installing$missing ..."
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    # shellcheck disable=SC2064 # the value now is the one that is meant
    trap "$as_root rm -f $policy" EXIT
fi
log=$(mktemp)
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 </dev/null
}
$as_root apt-get update -q >"$log" 2>&1 || tail -n 3 "$log" >&2
# shellcheck disable=SC2086 # one word per package
install $missing || for package in $missing; do
    install "$package" || { echo "test: cannot install $package:" && tail -n 3 "$log"; } >&2
done
rm -f "$log"
