#!/bin/sh
# PostgreSQL with its password from a file; the image's own entry point does the rest. Its socket is in
# /tmp, which any restart can write to.
set -eu
POSTGRES_PASSWORD=$(cat /run/secrets/database/password)
export POSTGRES_PASSWORD
exec docker-entrypoint.sh postgres -c listen_addresses='*' -c unix_socket_directories=/tmp \
    -c max_connections="${MAX_CONNECTIONS:-300}"
