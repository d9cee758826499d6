"""Write the report of a sweep, at any time: one HTML file with interactive figures that opens without a network.

    python sweeps/report.py NAME                  # runs/NAME/report.html, also while the sweep runs

A sweep writes its report itself when it ends, and logs it with its run in MLflow.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from ltsd.errors import UserError
from ltsd.flags import Parser, exit_code_of
from sweeps.machines.environment import require_packages
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of what is on record; return 0."""
    flags = read_flags(arguments)
    given = {name: value for name, value in vars(flags).items() if value is not None}
    sweep = Sweep.resumed(given, {}, remedy="give the name of one that was started, and its --storage")
    require_packages()
    from ltsd.data import load_splits  # these take seconds to import; --help and a mistaken flag need not wait
    from sweeps.journal.record import Record
    from sweeps.results.confirm import Choice
    from sweeps.results.finals import results
    from sweeps.results.html import Found, write_report
    from sweeps.results.report import address
    from sweeps.study.searcher import Study
    from sweeps.study.space import sweep_space
    from sweeps.tracking.view import MlflowView

    settings, record, splits = sweep.settings, Record.read(sweep.settings.folder), load_splits(sweep.base.data)
    spaces = {row: sweep_space(sweep, splits.imbalance_ratio, row) for row in sweep.searched}
    studies = [Study(record, sweep.base.seed, space, sweep.objectives, row=row) for row, space in spaces.items()]
    choices = [Choice.of(record, study.objectives, settings.preference, study.row) for study in studies]
    view = MlflowView.of(sweep, splits, {})
    with contextlib.suppress(UserError):  # the report lacks its links then
        view.reach()
    found = Found(
        sweep=sweep,
        record=record,
        studies=studies if settings.trials else [],
        choices=choices if settings.trials else [],
        results=results(record, choices, sweep.rows),
        class_names=splits.class_names,
        link=lambda key: address(sweep, view.page(key)),
    )
    print(write_report(found))
    return 0


def read_flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the name of the sweep and the addresses of its records."""
    parser = Parser("python sweeps/report.py", __doc__ or "")
    parser.add_argument("name", help="name of the sweep")
    parser.add_argument("--storage", default=Settings().storage, help="folder of all sweeps (default: runs)")
    parser.add_argument("--tracking-uri", help="another MLflow than the one that the sweep writes to, for the links")
    return parser.parse_known(arguments)


def command() -> int:
    """Run the command as a script; return its exit code."""
    return exit_code_of(main)


if __name__ == "__main__":
    sys.exit(command())
