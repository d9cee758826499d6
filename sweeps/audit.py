"""Compare what the journal, the study, the checkpoints and MLflow have of a sweep, job by job.

    python sweeps/audit.py NAME             # list the differences; exit code 0 if there are none
    python sweeps/audit.py NAME --repair    # bring study and MLflow in line with the journal

The journal is the truth. --repair with --tracking-uri or --study-uri writes a sweep into another MLflow or another
database, also an empty one. An address with a password must be given again, because passwords are not stored.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from ltsd.flags import Parser, exit_code_of
from sweeps.machines.environment import require_packages
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep

SHOWN = 5
Differences = Mapping[str, Sequence[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a sweep that no process works on; return 0 if all records agree, 1 if they differ."""
    flags = read_flags(arguments)
    given = {name: value for name, value in vars(flags).items() if name != "repair" and value is not None}
    sweep = Sweep.resumed(given, {}, remedy="give the name of one that was started, and its --storage")
    require_packages()
    from sweeps.consistency import Views  # takes seconds to import; --help and a mistaken flag need not wait

    with sweep.claimed():
        views = Views(sweep)
        if flags.repair:
            for line in views.repair():
                print(line)
        found = views.differences()
        tell(list(views.record.jobs), found)
    return 1 if found else 0


def read_flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the name of the sweep, the addresses of its records, and whether to repair."""
    parser = Parser("python sweeps/audit.py", __doc__ or "")
    parser.add_argument("name", help="name of the sweep")
    parser.add_argument("--storage", default=Settings().storage, help="folder of all sweeps (default: runs)")
    parser.add_argument("--tracking-uri", help="another MLflow than the one that the sweep wrote to")
    parser.add_argument("--study-uri", help="another database of the study, or the same one with user and password")
    parser.add_argument("--repair", action="store_true", help="bring study and MLflow in line with the journal")
    return parser.parse_known(arguments)


def tell(jobs: Sequence[str], found: Differences) -> None:
    """Print for every job whether all records agree on it, or how they differ."""
    width = max(map(len, [*jobs, *found]), default=0)
    for key in [*jobs, *(key for key in found if key not in jobs)]:
        lines = found.get(key, ["agreed"])
        for line in lines[:SHOWN]:
            print(f"{key:{width}}  {line}")
        if len(lines) > SHOWN:
            print(f"{key:{width}}  … and {len(lines) - SHOWN} more")
    print(f"{len(found)} differ" if found else f"all agree on {len(jobs)} jobs")


def command() -> int:
    """Run the command as a script; return its exit code."""
    return exit_code_of(main)


if __name__ == "__main__":
    sys.exit(command())
