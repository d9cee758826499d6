"""Hosts for tests, on one Linux machine: each in namespaces of its own, on one network that can be cut."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from checkout import PROJECT, make_checkout

VENV = Path(sys.prefix)
LAN, NET = "ltsd-lan", "10.99.7"
NEEDED = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync")


def what_is_missing() -> str:
    """Why there can be no such hosts here; "" where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of namespaces want root on Linux"
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"not installed: {', '.join(missing)} (openssh-server, rsync, iproute2)"
    if subprocess.run(["unshare", "-mpui", "--fork", "true"], check=False).returncode:
        return "namespaces are not allowed here"
    return ""


def must(*command: str) -> str:
    """Run a command that has to succeed; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


class Host:
    """A host with its own processes, files and network address; only ~/storage is the same on all."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.address = number, f"{NET}.{10 + number}"
        self._folder, self._net, self._cable = folder, f"ltsd-h{number}", f"ltsd-v{number}"
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Switch it on; where it was on before, with the files and the address that it had."""
        must("ip", "netns", "add", self._net)
        must("ip", "-n", LAN, "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._net)
        must("ip", "-n", LAN, "link", "set", self._cable, "master", "br0", "up")
        must("ip", "-n", self._net, "addr", "add", f"{self.address}/24", "dev", "eth0")
        must("ip", "-n", self._net, "link", "set", "eth0", "up")
        must("ip", "-n", self._net, "route", "add", "default", "via", f"{NET}.1")
        own = ("unshare", "-m", "-p", "-u", "-i", "--fork", "--kill-child")
        script = (str(PROJECT / "tests/cluster/host.sh"), str(self.number), self.address, str(self._folder), str(VENV))
        with (self._folder / f"host{self.number}.log").open("a") as log:
            self._process = subprocess.Popen(
                ("ip", "netns", "exec", self._net, *own, "bash", *script), stdout=log, stderr=log
            )

    def pull_the_plug(self) -> None:
        """All its processes end at once, nothing is said to anybody."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        subprocess.run(["ip", "netns", "del", self._net], capture_output=True, check=False)
        subprocess.run(["ip", "-n", LAN, "link", "del", self._cable], capture_output=True, check=False)

    def sent(self) -> set[str]:
        """What lies in its folder of the code; nothing before any of it came."""
        folder = self._folder / f"disks/{self.number}/upper/root/ltsd"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def link(self, state: str) -> None:
        """Have its network cable "up" or "down"."""
        must("ip", "-n", LAN, "link", "set", self._cable, state)

    def processes(self) -> list[str]:
        """What runs on it, apart from its sshd."""
        if self._process is None:
            return []
        pids = must("ip", "netns", "pids", self._net).split()
        lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
        commands = [line.read_bytes().replace(b"\0", b" ").decode() for line in lines if line.exists()]
        return [command for command in commands if command and "sshd" not in command and "host.sh" not in command]


class Lan:
    """Some hosts, a network between them, and the user's own machine on it."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.folder = folder
        self.hosts = [Host(number, folder) for number in range(1, hosts + 1)]
        self.key, self.checkout = folder / "key", folder / "checkout"

    def __enter__(self) -> Self:
        for name in ("storage", "disks"):
            (self.folder / name).mkdir()
        must("mount", "-t", "tmpfs", "-o", "size=6g", "tmpfs", str(self.folder / "disks"))
        make_checkout(self.checkout)
        shutil.copy(PROJECT / "constraints.txt", self.folder)
        must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self._clear()
        must("ip", "netns", "add", LAN)
        must("ip", "-n", LAN, "link", "set", "lo", "up")
        must("ip", "-n", LAN, "link", "add", "br0", "type", "bridge")
        must("ip", "-n", LAN, "addr", "add", f"{NET}.1/24", "dev", "br0")
        must("ip", "-n", LAN, "link", "set", "br0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        must("umount", "--lazy", str(self.folder / "disks"))

    def _clear(self) -> None:
        for host in self.hosts:
            host.pull_the_plug()
        subprocess.run(["ip", "netns", "del", LAN], capture_output=True, check=False)

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command in the checkout on the user's machine, which has a home folder of its own."""
        home = {"HOME": str(self.folder), "RAY_TMPDIR": str(self.folder / "ray"), "RAY_AUTH_MODE": "token"}
        with log.open("w") as file:
            return subprocess.Popen(
                ("ip", "netns", "exec", LAN, *command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.checkout,
                env=os.environ | home,
            )


def wait_until(what: str, is_so: Callable[[], bool], within_s: float) -> float:
    """Wait for something; returns how long it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began
