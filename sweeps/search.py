"""The main command: search, retrain the best, compare, record.

    python sweeps/search.py                                           # the embedded digits, some minutes
    python sweeps/search.py --data PATH --data.imbalance-ratio 50     # your own images
    python sweeps/search.py --name NAME --resume                      # continue after Ctrl-C or a kill
    python sweeps/search.py --compare tuned --references at-bsl       # a rival tuned with the same budget
    python sweeps/search.py --trials 0 --references all               # no search: compare every method

A flag that names a knob of the configuration (`--distill.temperature 2`) fixes it. The sweep searches the other
knobs of the groups in --search.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from ltsd.config import Config
from ltsd.data.named import NAMED
from ltsd.data.sources import load_source
from ltsd.errors import UserError
from ltsd.flags import Parser, add_flags, exit_code_of, values_set
from ltsd.knobs import Value
from ltsd.tasks import fitting
from sweeps.machines.environment import remedy, require_packages
from sweeps.machines.supervisor import StillbornError, supervised
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep

ALIASES = {"data": "data.source"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags and run or resume a sweep; returns the exit code."""
    sweep = read_flags(arguments)
    require_packages()

    def run(again: bool) -> int:
        from sweeps.driver import run_sweep  # takes seconds to import; --help and a mistaken flag need not wait

        return exit_code_of(lambda: run_sweep(dataclasses.replace(sweep, is_new=sweep.is_new and not again)))

    try:
        return supervised(run, sweep.on_record)
    except StillbornError as error:
        from sweeps.startup import withdraw  # takes seconds to import, too

        withdraw(sweep)
        raise UserError(f"the sweep's process died before its first job began ({error}); {remedy()}") from None


def read_flags(arguments: Sequence[str] | None) -> Sweep:
    """Return the sweep that the flags request: a new one or, with --resume, the one with that name."""
    parser = Parser("python sweeps/search.py", __doc__ or "")
    parser.add_argument("--resume", action="store_true", help="continue the sweep of that --name")
    add_flags(parser, Settings(), title="sweep")
    add_flags(parser, Config(), aliases=ALIASES, presets=Config.presets())
    parsed = parser.parse_known(arguments)
    given, fixed = values_set(parsed, Settings()), values_set(parsed, Config())
    if parsed.resume and "shared" in given:
        from sweeps.journal.journal_backup import fetch  # takes seconds to import, as the driver does

        fetch(given)
    return Sweep.resumed(given, fixed) if parsed.resume else begun(given, fixed)


def begun(given: dict[str, Any], fixed: dict[str, Value]) -> Sweep:
    """Return a new sweep. If the user does not fix the task, it is the one that fits the labels of the source.

    Raises:
        UserError: as `Sweep.new` and `load_source`.
    """
    sweep = Sweep.new(given, fixed)
    data = sweep.base.data
    if "task" in fixed or data.source in NAMED:
        return sweep
    task = fitting(load_source(data, check=False).train)
    return sweep if task == sweep.base.task else Sweep.new(given, fixed | {"task": task})


def command() -> int:
    """Run the command as a script; return its exit code."""
    return exit_code_of(main)


if __name__ == "__main__":
    sys.exit(command())
