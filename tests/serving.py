"""Real servers for tests: MLflow, and one that speaks the language of S3."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

LOGIN = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "Tell-No-One", "AWS_EC2_METADATA_DISABLED": "true"}


class Server:
    """A real MLflow server in a folder, on the records in a database there or elsewhere, on a port of its own."""

    def __init__(self, folder: Path, records: str = "sqlite:///mlflow.db") -> None:
        self._folder, self._records = folder, records
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", self._records, "--workers", "1"),
                *("--artifacts-destination", str(self._folder / "mlartifacts")),
            ],
            cwd=self._folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes that nobody asks for
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(f"{self.uri}/health")

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait(20)
            self._wait_until_the_port_is_free()

    def _wait_until_the_port_is_free(self) -> None:
        """Wait for the server's children, which may outlive it for a moment and hold its port."""
        for _ in range(80):
            with socket.socket() as free, contextlib.suppress(OSError):
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", self.port))
                return
            time.sleep(0.25)
        raise AssertionError(f"port {self.port} stays taken")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str) -> None:
    """Wait until a server answers there."""
    for _ in range(240):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        time.sleep(0.25)
    raise AssertionError("MLflow does not start")


@contextlib.contextmanager
def model_server(folder: Path, model: str) -> Iterator[str]:
    """Inside, MLflow serves a model of the database in a folder; yields the address that takes images."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Inside, moto plays S3 on this machine; yields its address, HOST:PORT."""
    log = folder / "s3.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | LOGIN)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.kill()
        process.wait()


def s3_uri(server: str, path: str) -> str:
    """The address of an object or a folder, `bucket/path`, on such a server."""
    return f"s3://{path}?endpoint_override={server}&scheme=http"


def require_login(server: str, required: bool) -> None:
    """Have the server refuse everybody whose keys it did not hand out, or nobody."""
    count = b"0" if required else b"inf"
    request = urllib.request.Request(f"http://{server}/moto-api/reset-auth", count, {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).close()
