#!/bin/sh
# Puts NATS, Centrifugo and Nchan into bench/.tools, where the fan-out rows look first; nothing outside it changes
# but Go's caches. Needs go for the one, a Debian's apt-get and dpkg for the other; does what is not done yet.
set -eu

NATS_VERSION=v2.15.2
CENTRIFUGO_VERSION=v6.9.1

cd "$(dirname "$0")"
tools=$PWD/.tools
missing=0

nats() {
    if [ "$("$tools/bin/nats-server" --version 2>/dev/null)" = "nats-server: $NATS_VERSION" ]; then
        return 0
    fi
    command -v go >/dev/null || { echo "NATS: needs go" >&2; return 1; }
    mkdir -p "$tools/bin"
    GOBIN=$tools/bin go install "github.com/nats-io/nats-server/v2@$NATS_VERSION"
}

centrifugo() {
    if [ -x "$tools/bin/centrifugo" ] && [ "$(cat "$tools/centrifugo.version" 2>/dev/null)" = "$CENTRIFUGO_VERSION" ]; then
        return 0
    fi
    command -v go >/dev/null || { echo "Centrifugo: needs go" >&2; return 1; }
    mkdir -p "$tools/bin"
    GOBIN=$tools/bin go install "github.com/centrifugal/centrifugo/v6@$CENTRIFUGO_VERSION" &&
        echo "$CENTRIFUGO_VERSION" >"$tools/centrifugo.version"
}

# Unpacked, not installed: an installed nginx would start as a service, and needs root.
nchan() {
    nginx=$tools/nginx
    module=usr/lib/nginx/modules/ngx_nchan_module.so
    if [ ! -f "$nginx/$module" ]; then
        command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "Nchan: needs apt-get" >&2; return 1; }
        mkdir -p "$tools"
        fetched=$(mktemp -d "$tools/fetched.XXXXXX")
        (cd "$fetched" && apt-get -qq -o APT::Sandbox::User=root download nginx libnginx-mod-nchan) || {
            rm -rf "$fetched"
            echo "Nchan: apt-get cannot fetch nginx and libnginx-mod-nchan (is apt-get update due?)" >&2
            return 1
        }
        for package in "$fetched"/*.deb; do
            dpkg -x "$package" "$fetched/root" || return 1
        done
        # The module has nginx make a directory of Debian's, whatever the configuration says: in this copy it is
        # one below the prefix that nginx is started with. (Of the same length, so that the file stays whole.)
        LC_ALL=C sed -i 's|/var/lib/nginx/|.//././././././|' "$fetched/root/$module" || return 1
        rm -rf "$nginx"
        mv "$fetched/root" "$nginx" || return 1
        rm -rf "$fetched"
    fi
    if ldd "$nginx/usr/sbin/nginx" | grep 'not found' >&2; then
        echo "Nchan: nginx needs these libraries" >&2
        return 1
    fi
}

if nats; then echo "NATS: $("$tools/bin/nats-server" --version)"; else missing=1; fi
if centrifugo; then echo "Centrifugo: $CENTRIFUGO_VERSION"; else missing=1; fi
if nchan; then echo "Nchan: $("$tools/nginx/usr/sbin/nginx" -v 2>&1) with libnginx-mod-nchan"; else missing=1; fi
exit "$missing"
