"""A STAC API: PostgreSQL with pgstac behind stac-fastapi-pgstac."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.services.process import answers, find_program, free_port, server, unavailable


@dataclass
class Catalogue:
    url: str
    port: int
    home: Path

    def load(self, collections: Sequence[dict[str, Any]], items: Sequence[dict[str, Any]]) -> None:
        """Put collections and items into the database."""
        for kind, records in (("collections", collections), ("items", items)):
            if records:
                path = self.home / f"{kind}.ndjson"
                path.write_text("\n".join(json.dumps(record) for record in records))
                self._pypgstac("load", kind, str(path), "--method", "upsert")

    def _pypgstac(self, *arguments: str) -> None:
        dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        command = [find_program("pypgstac"), *arguments, "--dsn", dsn]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _programs() -> Path:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres")) or glob.glob("/usr/pgsql-*/bin/postgres")
    program = found[-1] if found else shutil.which("postgres")
    if program is None:
        unavailable("PostgreSQL is not installed (sh .ci/services.sh installs it)")
    return Path(program).parent


@contextmanager
def _postgres() -> Iterator[tuple[int, Path]]:
    programs = _programs()
    # PostgreSQL refuses to run as root, and its own user cannot look into pytest's directories.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="pgstac-"))
    try:
        if user:
            shutil.chown(home, user, user)
        identity = {"user": user, "group": user, "extra_groups": []} if user else {}
        data, port = home / "data", free_port()
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
             "--no-locale", "--no-sync"],
            capture_output=True, text=True, check=False, cwd=home, **identity,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        command = [
            str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(home),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "synchronous_commit=off",
            "-c", "full_page_writes=off",
        ]  # fmt: skip
        check = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]

        def ready() -> bool:
            return subprocess.run(check, check=False).returncode == 0

        with server(command, ready, home / "postgres.log", user=user, stop_signal=signal.SIGINT):
            yield port, home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def pgstac() -> Iterator[Catalogue]:
    if find_spec("stac_fastapi") is None or find_spec("stac_fastapi.pgstac") is None:
        unavailable("stac-fastapi.pgstac is not installed (the extra 'test' installs it)")
    find_program("pypgstac")
    with _postgres() as (database, home):
        port = free_port()
        catalogue = Catalogue(f"http://127.0.0.1:{port}", database, home)
        catalogue._pypgstac("migrate")
        env = {
            "PGUSER": "postgres", "PGPASSWORD": "none", "PGHOST": "127.0.0.1", "PGPORT": str(database),
            "PGDATABASE": "postgres", "USE_API_HYDRATE": "false",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory",
            "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
        ]  # fmt: skip
        with server(command, lambda: answers(catalogue.url + "/"), home / "uvicorn.log", env=env):
            yield catalogue
