#!/bin/sh
# Install what the tests start: PostgreSQL with PostGIS, nginx, and Chromium. Safe to run again.
# The others (SeaweedFS, pgstac, stac-fastapi) come with pip, in the extra "test".
# Where it cannot install, it says why: on CI (the variable CI is set, as tests/services/process.py reads it)
# that fails the build; elsewhere those tests skip with the reason.
set -u

# Where the servers are looked for; another directory for the tests of this script.
ROOT=${SERVICES_ROOT:-}

in_path() { [ -z "$ROOT" ] && command -v "$1" >/dev/null 2>&1; }
postgres() { ls "$ROOT"/usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || in_path postgres; }
postgis() { ls "$ROOT"/usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1; }
web() { [ -x "$ROOT/usr/sbin/nginx" ] || in_path nginx; }
browser() { [ -x "$ROOT/usr/bin/chromium" ] || in_path chromium; }
all_there() { postgres && postgis && web && browser; }

give_up() {
    echo "services.sh: $1" >&2
    if [ -n "${CI:-}" ]; then
        echo "services.sh: on CI all servers must be there." >&2
        exit 1
    fi
    echo "services.sh: the tests that need them skip, and say so." >&2
    exit 0
}

if all_there; then
    exit 0
fi
command -v apt-get >/dev/null 2>&1 ||
    give_up "no apt-get here: install PostgreSQL, PostGIS, nginx and Chromium by hand."
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        give_up "neither root nor sudo without a password: as root, run: sh .ci/services.sh"
    fi
fi

log=$(mktemp)
policy="$ROOT/usr/sbin/policy-rc.d"
ours=""
clean_up() {
    rm -f "$log"
    [ -z "$ours" ] || $as_root rm -f "$policy"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
# The packages would start servers of their own on fixed ports; the tests start theirs on free ones.
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod +x "$policy" && ours=yes
fi

apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }
missing=""
postgres || missing="$missing postgresql"
web || missing="$missing nginx-light"
browser || missing="$missing chromium"
install() {
    # An outdated or unreachable source among many is no reason to stop: the installing decides.
    apt update || true
    # shellcheck disable=SC2086 -- a list of packages
    [ -z "$missing" ] || apt install -y --no-install-recommends $missing || return 1
    postgis && return 0
    version=$(ls "$ROOT/usr/lib/postgresql" | sort -n | tail -n 1)
    apt install -y --no-install-recommends "postgresql-$version-postgis-3"
}
if ! install >"$log" 2>&1 </dev/null || ! all_there; then
    tail -n 5 "$log" >&2
    give_up "apt-get did not install them."
fi
