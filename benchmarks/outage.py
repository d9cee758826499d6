"""What an MLflow that is dead costs training: the time of an epoch with the server away, over that with it there.

    python benchmarks/outage.py --pairs 3

Prints the table in benchmarks/results/outage.md. The two sweeps of a pair run one after the other; an epoch's time is
that between two lines of the journal, over all epochs of all trials but the first of each.
"""

import argparse
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from sweeps.journal.record import Record

SEARCH = Path(__file__).parent.parent / "sweeps" / "search.py"
FLAGS = ("--name", "one", "--trials", "6", "--epochs", "30", "--teacher.epochs", "2", "--final-seeds", "1")


def main() -> None:
    """Run the pairs and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    ratios = []
    print("| pair | epoch with MLflow there, ms | epoch with MLflow dead, ms | ratio |\n|---|---|---|---|")
    for pair in range(1, parser.parse_args().pairs + 1):
        there, dead = epoch_ms(stays=True), epoch_ms(stays=False)
        ratios.append(dead / there)
        print(f"| {pair} | {there:.1f} | {dead:.1f} | {ratios[-1]:.3f} |", flush=True)
    print(f"\nratio {statistics.fmean(ratios):.3f} ± {statistics.stdev(ratios) if len(ratios) > 1 else 0:.3f}")


def epoch_ms(*, stays: bool) -> float:
    """The mean time of an epoch in a sweep whose MLflow stays, or is killed when the first trial starts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, uri = start_server(folder)
        with (folder / "said.log").open("wb") as log:
            sweep = subprocess.Popen(
                [sys.executable, "-u", str(SEARCH), *FLAGS, "--tracking-uri", uri], cwd=folder, stdout=log, stderr=log
            )
        wait_for(folder, sweep, "trial-0000 starts")
        if not stays:
            os.killpg(server.pid, signal.SIGKILL)
        wait_for(folder, sweep, "confirm-")
        sweep.send_signal(signal.SIGTERM)
        sweep.wait()
        if stays:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        times = [list(known.reported.values()) for known in Record.read(folder / "runs" / "one").of_kind("trial")]
        return statistics.fmean(later - earlier for at in times for earlier, later in itertools.pairwise(at))


def start_server(folder: Path, records: str = "sqlite:///server.db") -> tuple[subprocess.Popen[bytes], str]:
    """A real MLflow server on its records, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", records, "--workers", "1"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
        except OSError:
            time.sleep(0.5)
        else:
            return server, f"http://127.0.0.1:{port}"


def wait_for(folder: Path, sweep: subprocess.Popen[bytes], text: str) -> None:
    """Until the sweep says it."""
    while text not in (folder / "said.log").read_text():
        assert sweep.poll() is None, (folder / "said.log").read_text()
        time.sleep(0.1)


if __name__ == "__main__":
    main()
