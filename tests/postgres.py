"""A real PostgreSQL server for tests, in a folder of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PASSWORD = "s3cret/of+mine"
IN_A_URI = "s3cret%2Fof+mine"


class Postgres:
    """A server on a port of its own, which asks `someone` for a password; it runs as no root may run it."""

    def __init__(self) -> None:
        if not PROGRAMS:
            pytest.skip("PostgreSQL is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="ltsd-postgres-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self._folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(self._folder, "nobody", "nogroup")
            shutil.chown(self._folder / "password", "nobody", "nogroup")
        self._run("initdb", "-U", "someone", "--pwfile", str(self._folder / "password"), "--auth", "scram-sha-256")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self._folder / "log"))

    def stop(self) -> None:
        """As a host does that loses its power: whoever is connected is cut off."""
        self._run("pg_ctl", "stop", "-m", "immediate")

    def remove(self) -> None:
        subprocess.run(self._command("pg_ctl", "stop", "-m", "immediate"), capture_output=True, check=False)
        shutil.rmtree(self._folder)

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://someone:{IN_A_URI}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URI of an empty one."""
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.uri(name)

    def dump(self, uri: str) -> str:
        """All that a database holds."""
        return subprocess.run([PROGRAMS[-1] / "pg_dump", uri], capture_output=True, text=True, check=True).stdout

    def _command(self, program: str, *arguments: str) -> list[str]:
        """The command, as another user where this one is root."""
        other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        return [*other, str(PROGRAMS[-1] / program), "-D", str(self._folder / "data"), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
