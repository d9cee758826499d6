"""Command-line flags made from the config dataclasses: typed, with help; only the flags that are set are returned."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn, get_args

from ltsd.errors import UserError
from ltsd.knobs import Value, checked, nearest, walk
from ltsd.output import CLOSED, discard_output, prepare_output


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that names the nearest right flag for a wrong one, and never guesses from a prefix."""

    def __init__(self, prog: str, description: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} [flags]",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_known(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse; an unknown flag raises UserError."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            flag = unknown[0].split("=")[0]  # what is set may be a password
            raise UserError(f"unknown argument {flag!r}{nearest(flag, self._flags(parsed))}")
        return parsed

    def _flags(self, parsed: argparse.Namespace) -> list[str]:
        """Those that could have been meant: of a command with subcommands, the chosen one's."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                flags += action.choices[getattr(parsed, action.dest)]._flags(parsed)
        return flags

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with a message and where help is."""
        raise UserError(f"{message} (see {self.prog} --help)")


def add_flags(
    parser: argparse.ArgumentParser,
    defaults: object,
    title: str = "run",
    aliases: Mapping[str, str] | None = None,
    presets: Mapping[str, object] | None = None,
) -> None:
    """One flag per knob of a (nested) config dataclass; those of no group stand under `title`.

    Args:
        aliases: a second, shorter flag for some knobs.
        presets: the same dataclass with the defaults of special cases; help tells where these differ.
    """
    groups: dict[str, Any] = {}
    special = {case: {name: value for name, value, *_ in walk(preset)} for case, preset in (presets or {}).items()}
    for name, value, hint, item in walk(defaults):
        above = name.rpartition(".")[0] or title
        group = groups.setdefault(above, parser.add_argument_group(above))
        flags = [f"--{alias}" for alias, target in (aliases or {}).items() if target == name]
        spelled = f"--{name.replace('_', '-')}"
        kinds = get_args(hint) or (hint,)
        facts = "; ".join(_facts(value, item, {case: known[name] for case, known in special.items()}))
        choices = item.metadata["choices"]
        reads = {"dest": name, "default": argparse.SUPPRESS, "type": _converter(name, hint, item, kinds[0])}
        if "_" in name:
            group.add_argument(f"--{name}", help=argparse.SUPPRESS, **reads)
        group.add_argument(
            *flags,
            spelled,
            metavar="|".join(choices or filter(None, (_METAVARS[kinds[0]], item.metadata["word"]))),
            **reads,
            help=f"{item.metadata['help']}{facts and f' ({facts})'}".replace("%", "%%"),
        )


def _facts(default: Value, item: Any, special: Mapping[str, Value]) -> Iterator[str]:
    """What a knob is where it isn't set, what it may be, and what a sweep tries."""
    known = item.metadata["unset"] if default is None else _told(default)
    if known:
        yield f"default: {known}"
    yield from (f"{case}: {_told(value)}" for case, value in special.items() if value != default)
    limits = [f"{word} {_told(limit)}" for word, limit in item.metadata["limits"].items() if limit is not None]
    if limits:
        yield " and ".join(limits)
    tried = item.metadata["search"]
    if tried is not None:
        yield f"a sweep tries {tried}"


def _told(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def values_set(parsed: argparse.Namespace, defaults: object) -> dict[str, Value]:
    """The knobs of `defaults` that were set on the command line, by dotted name."""
    names = [name for name, *_ in walk(defaults)]
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}


def _converter(name: str, hint: Any, item: Any, kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        if text == item.metadata["word"]:
            return text
        try:
            value = _READERS[kind](text)
        except (ValueError, ZeroDivisionError, KeyError, OverflowError):
            word = item.metadata["word"]
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {text}: expected {_EXPECTED[kind]}{f', or {word}' if word else ''}") from None
        return checked(name, value, hint, item)

    return convert


_METAVARS = {int: "N", float: "X", str: "TEXT", bool: "true|false"}
_EXPECTED = {int: "a whole number", float: "a number or a fraction such as 8/255", bool: "true or false"}
_READERS: dict[type, Callable[[str], Any]] = {
    int: int,
    float: lambda text: float(Fraction(text)) if "/" in text else float(text),
    str: str,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
}


def exit_code_of(main: Callable[[], int]) -> int:
    """Run a command; returns its exit code: 2 with one message on stderr after a UserError, `output.CLOSED` where
    nobody reads its output any more.
    """
    prepare_output()
    try:
        return _code_of(main)
    except BrokenPipeError:
        discard_output()
        return CLOSED


def _code_of(main: Callable[[], int]) -> int:
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        sys.stdout.flush()
