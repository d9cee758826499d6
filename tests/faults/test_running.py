"""One sweep while it runs: who listens, to whom it answers, and that another driver is refused."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import LONG, Sweep, audit
from kills import NAME, descendants
from sweeping import run_search

pytestmark = pytest.mark.slow
LISTENING = "0A"
RAY = ("/raylet", "/gcs_server", "ray::", "/ray/", "sweeps/search.py")
STRANGER = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="FATAL")
print(ray.cluster_resources())
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """It has more to do than the tests take; after them a signal ends it, and all of it is saved."""
    sweep = Sweep(tmp_path_factory.mktemp("running"), *LONG, "--trials", "200")
    sweep.until("trial-0000 starts")
    yield sweep
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait(20) == 130, sweep.said()


def listeners(pids: dict[int, str]) -> dict[tuple[str, int], str]:
    """The addresses on which processes listen, and their commands; read from the kernel's own tables."""
    owners: dict[str, str] = {}
    for pid, command in pids.items():
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                owners[str(descriptor.readlink())] = command
            except OSError:
                continue
    found: dict[tuple[str, int], str] = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            owner = owners.get(f"socket:[{fields[9]}]")
            if fields[3] == LISTENING and owner is not None:
                address, port = fields[1].split(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found[socket.inet_ntop(family, b"".join(words)), int(port, 16)] = owner
    return found


def is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def test_only_ray_listens_beyond_loopback_and_answers_to_its_token_alone(sweep: Sweep) -> None:
    """Ray resolves a loopback address to the machine's own and cannot be told not to; so its token is set."""
    found = listeners(descendants(sweep.process.pid) | {sweep.process.pid: "supervisor"})
    beyond = {place: command for place, command in found.items() if not is_loopback(place[0])}
    print(*(f"{place} {command[:60]}" for place, command in beyond.items()), sep="\n")
    assert found
    assert all(any(part in command for part in RAY) for command in beyond.values()), beyond
    gcs = next(place for place, command in found.items() if "gcs_server" in command)
    host = socket.gethostbyname(socket.gethostname()) if gcs[0] in ("0.0.0.0", "::") else gcs[0]
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, f"{host}:{gcs[1]}"], capture_output=True, text=True, timeout=100, check=False
    )
    assert stranger.returncode != 0
    assert "CPU" not in stranger.stdout
    assert "Unauthenticated" in stranger.stderr or "uthentication" in stranger.stderr, stranger.stderr[-2000:]


def test_a_second_driver_is_refused_with_the_first_ones_process_and_host(sweep: Sweep) -> None:
    refused = run_search(sweep.folder, "--name", NAME, "--resume")
    assert refused.returncode == 2
    assert f" on {socket.gethostname()} works on this sweep; wait for it, or stop it first" in refused.stderr
    assert audit(sweep.folder).returncode == 2
