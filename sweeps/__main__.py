"""The commands of a sweep in one: `ltsd-sweep search`, `ltsd-sweep audit`, `ltsd-sweep report`, each with --help."""

import sys
from importlib import import_module

from ltsd.errors import UserError
from ltsd.flags import exit_code_of

COMMANDS = {
    "search": "search, retrain the best, compare, record",
    "audit": "compare the records of a sweep, and repair them",
    "report": "write the report of a sweep",
}


def main() -> int:
    """Run the command that the first argument names; return its exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__, *(f"  {command:7} {what}" for command, what in COMMANDS.items()), sep="\n")
        return 0
    if name not in COMMANDS:
        raise UserError(f"{name!r} is no command; there are {', '.join(COMMANDS)}")
    run = import_module(f"sweeps.{name}").main
    code: int = run(sys.argv[2:])
    return code


def command() -> int:
    """Run as a script; return the exit code."""
    return exit_code_of(main)


if __name__ == "__main__":
    sys.exit(command())
