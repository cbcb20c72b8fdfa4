#!/bin/bash
# Whether GET $2 on this machine's port $1 answers 200; needs nothing but bash.
exec 3<> "/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
read -r _ status _ <&3
[ "$status" = 200 ]
