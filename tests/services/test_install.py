"""The script that installs the servers, on made-up machines whose apt-get only takes notes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "services.sh"

#: Notes its arguments and "installs": files appear where Debian puts them.
APT = """#!/bin/sh
echo "apt-get $* DEBIAN_FRONTEND=$DEBIAN_FRONTEND" >>"$NOTES"
[ -x "$SERVICES_ROOT/usr/sbin/policy-rc.d" ] && echo "policy" >>"$NOTES"
case "$*" in
*update*) exit "${APT_UPDATE:-0}" ;;
*postgis*) [ -z "${APT_POSTGIS:-}" ] || { echo "E: no postgis"; exit 100; }
    mkdir -p "$SERVICES_ROOT/usr/share/postgresql/16/extension"
    touch "$SERVICES_ROOT/usr/share/postgresql/16/extension/postgis.control" ;;
esac
case "$*" in
*" postgresql"*) cd "$SERVICES_ROOT"; mkdir -p usr/lib/postgresql/16/bin usr/lib/postgresql/9.6/bin
    touch "$SERVICES_ROOT/usr/lib/postgresql/16/bin/postgres" ;;
esac
case "$*" in
*nginx*) touch "$SERVICES_ROOT/usr/sbin/nginx"; chmod +x "$SERVICES_ROOT/usr/sbin/nginx" ;;
esac
case "$*" in
*chromium*) cd "$SERVICES_ROOT"; mkdir -p usr/bin; touch usr/bin/chromium; chmod +x usr/bin/chromium ;;
esac
"""
SUDO = '#!/bin/sh\n[ -z "${NO_SUDO:-}" ] || exit 1\necho "sudo $*" >>"$NOTES"\nshift\n"$@"\n'


class Machine:
    def __init__(self, home: Path) -> None:
        self.root, self.bin, self.notes = home / "root", home / "bin", home / "notes"
        (self.root / "usr/sbin").mkdir(parents=True)
        self.bin.mkdir()
        for tool in (
            "sh",
            "ls",
            "sort",
            "tail",
            "mktemp",
            "rm",
            "chmod",
            "tee",
            "env",
            "touch",
            "mkdir",
            "true",
        ):
            real = next(p for p in ("/bin", "/usr/bin") if os.path.exists(f"{p}/{tool}"))
            (self.bin / tool).symlink_to(f"{real}/{tool}")
        self.notes.touch()
        self.add("apt-get", APT)
        self.add("id", "#!/bin/sh\necho 0\n")

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.bin), "NOTES": str(self.notes), "SERVICES_ROOT": str(self.root), **env}
        return subprocess.run(["/bin/sh", str(SCRIPT)], env=env, capture_output=True, text=True, check=False)

    @property
    def told(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_bare_machine_gets_everything(machine):
    done = machine.run(CI="true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    update, *installs = [line for line in machine.told if line.startswith("apt-get")]
    assert " update" in update
    assert all(line.endswith("DEBIAN_FRONTEND=noninteractive") for line in machine.told if line != "policy")
    assert [line.partition("install ")[2].split(" DEB")[0] for line in installs] == [
        "-y --no-install-recommends postgresql nginx-light chromium",
        "-y --no-install-recommends postgresql-16-postgis-3",  # 16 is newer than 9.6
    ]
    assert machine.told.count("policy") == 3  # no package starts a server of its own ...
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()  # ... and the machine is left as it was
    count = len(machine.told)
    assert machine.run(CI="true").returncode == 0
    assert len(machine.told) == count  # nothing to do the second time


def test_only_what_is_missing_is_installed(machine):
    machine.run()
    (machine.root / "usr/sbin/nginx").unlink()
    machine.notes.write_text("")
    assert machine.run().returncode == 0
    assert [
        line.split("recommends ")[1].split(" DEB")[0] for line in machine.told if "recommends" in line
    ] == ["nginx-light"]


def test_a_policy_of_the_machines_own_is_kept(machine):
    policy = machine.root / "usr/sbin/policy-rc.d"
    policy.write_text("mine")
    assert machine.run().returncode == 0
    assert policy.read_text() == "mine"


def test_a_source_that_is_down_does_not_stop_it(machine):
    assert machine.run(APT_UPDATE="100", CI="1").returncode == 0


def test_sudo_is_used_where_it_asks_no_password(machine):
    machine.add("id", "#!/bin/sh\necho 1000\n")
    machine.add("sudo", SUDO)
    assert machine.run(CI="1").returncode == 0
    assert "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get" in machine.notes.read_text()
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()


@pytest.mark.parametrize("why", ["no sudo", "sudo asks", "no apt", "apt fails", "apt does nothing"])
def test_where_it_cannot_install_ci_fails_and_a_developer_is_told(machine, why):
    env = {}
    if "sudo" in why:
        machine.add("id", "#!/bin/sh\necho 1000\n")
    if why == "sudo asks":
        machine.add("sudo", SUDO)
        env["NO_SUDO"] = "1"
    if why == "no apt":
        (machine.bin / "apt-get").unlink()
    if why == "apt fails":
        env["APT_POSTGIS"] = "1"
    if why == "apt does nothing":
        machine.add("apt-get", "#!/bin/sh\nexit 0\n")
    says = {"no apt": "no apt-get here", "apt fails": "E: no postgis", "apt does nothing": "did not install"}
    done = machine.run(**env)
    assert done.returncode == 0
    assert says.get(why, "neither root nor sudo") in done.stderr
    assert "skip" in done.stderr
    done = machine.run(CI="1", **env)
    assert done.returncode == 1
    assert says.get(why, "neither root nor sudo") in done.stderr
    assert "on CI all servers must be there" in done.stderr
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()
