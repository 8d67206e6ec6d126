#!/bin/sh
# Installs the independent readers that the slow tests ask: exiftool and ImageMagick.
set -eu
missing=""
command -v exiftool > /dev/null || missing="$missing libimage-exiftool-perl"
test -x /usr/bin/identify || command -v magick > /dev/null || missing="$missing imagemagick"
test -n "$missing" || exit 0
become=""
if test "$(id -u)" != 0; then
    become="sudo -n"
fi
if ! command -v apt-get > /dev/null || ! { test -z "$become" || sudo -n true 2> /dev/null; }; then
    echo "make test-slow needs$missing; install them, since there is no apt-get that may be used" >&2
    exit 1
fi
$become apt-get update -qq
# shellcheck disable=SC2086 # several names
$become env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing
