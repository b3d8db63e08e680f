#!/bin/sh
# Starts slapd with the schema of the image. On first start the default directory is loaded. The
# passwords are those that the secrets hold now: a new one needs a new start and nothing else.
# `start restore` loads what slapcat wrote, from standard input, into an empty volume and ends.
set -eu
umask 077
base=dc=dcm4che,dc=org
admin=cn=admin,$base
reader=cn=reader,$base
configuration=/run/dicomq/slapd.conf
database=/var/lib/ldap/database

hash() { slappasswd -n -T "/run/secrets/$1" 2>/dev/null; }
{
    for schema in /etc/ldap/schema/core.schema /etc/ldap/schema/cosine.schema \
        /etc/ldap/schema/inetorgperson.schema /dicomq/ldap/schema/*.schema; do
        echo "include $schema"
    done
    cat <<END
pidfile /run/dicomq/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
disallow bind_anon
require authc
database mdb
maxsize 1073741824
suffix $base
rootdn $admin
rootpw $(hash ldap_admin_password)
directory $database
index objectClass eq
index dicomDeviceName,dicomAETitle eq
limits dn.exact="$reader" size=unlimited
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="$reader" read by * none
overlay syncprov
END
} >"$configuration"

load() { # LDIF of all entries from standard input
    # What an interrupted load left behind is no directory yet.
    rm -rf "$database.new"
    mkdir "$database.new"
    sed "s|^directory .*|directory $database.new|" "$configuration" >/run/dicomq/first.conf
    slapadd -q -f /run/dicomq/first.conf
    mv "$database.new" "$database"
}
if [ "${1:-}" = restore ]; then
    if [ -d "$database" ]; then
        echo "ldap: the volume holds a directory already; remove the volume first" >&2
        exit 1
    fi
    load
    exit 0
fi
if [ ! -d "$database" ]; then
    for part in /dicomq/ldap/default/*.ldif; do
        grep -v -e '^#' -e '^version:' "$part"
        echo
    done | cat -s | sed '1{/^$/d}' | load
fi
# The processes of dicomq read as this entry; only administrators write.
if slapcat -f "$configuration" -a '(&(objectClass=simpleSecurityObject)(cn=reader))' | grep -q .; then
    verb="changetype: modify
replace: userPassword"
    tool=slapmodify
else
    verb="objectClass: simpleSecurityObject
objectClass: organizationalRole
cn: reader"
    tool=slapadd
fi
printf 'dn: %s\n%s\nuserPassword: %s\n' "$reader" "$verb" "$(hash ldap_reader_password)" |
    $tool -f "$configuration" >/dev/null

exec slapd -d 0 -f "$configuration" -h ldap://0.0.0.0:1389
