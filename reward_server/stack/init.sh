#!/bin/sh
# The first thing at every start, as root without a network: makes the database's password if there
# is none yet, says what is trained, and gives every volume to the user who writes to it.
# With the word "rotate": a new password in any case (docs/operations.md says what else it takes).
set -eu
umask 077
APP=10001:10001
PASSWORD=/secrets/database/password

secret() { # OWNER FILE: standard input becomes a file that its owner alone can read
    cat > "$2.part"
    chmod 0400 "$2.part"
    chown "$1" "$2.part"
    mv "$2.part" "$2"
}
random() { od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'; }

if [ ! -s "$PASSWORD" ] || [ "${1:-}" = rotate ]; then
    password=$(random)
    # The database's copy comes last: while it is missing, both are made anew.
    echo "postgres:5432:rewards:rewards:$password" | secret "$APP" /secrets/servers/pgpass
    echo "$password" | secret postgres "$PASSWORD"
    echo "made the database's password"
fi
if [ ! -s /secrets/monitoring/grafana ]; then
    random | secret "$APP" /secrets/monitoring/grafana
fi
echo mixed | secret "$APP" /choice/reward
chmod 0600 /choice/reward
chmod 0755 /secrets/* /choice
chown "$APP" /choice /secrets/trainer /secrets/annotators /secrets/monitoring /secrets/people
chown "$APP" /volumes/images /volumes/runs /volumes/prometheus /volumes/grafana
chown postgres /volumes/database
