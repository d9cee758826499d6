"""Configurations of a Hugging Face data set, read from its README.md: several data sets in one folder."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ltsd.data.filesystems import Place
from ltsd.data.names import listed
from ltsd.errors import UserError

CARD = "README.md"
DEFAULT = "default"
FRONT_MATTER = re.compile(r"\ufeff?---\r?\n(.*?)\r?\n---\s*(?:\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Configuration:
    """One data set: its folder, with a trailing slash, and globs by split, relative to it."""

    folder: str
    patterns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class DataSetCard:
    """The configurations of a README.md by name; `default` is the one to read if none is chosen, if any."""

    configurations: Mapping[str, Configuration]
    default: str | None

    def chosen(self, source: str, wanted: str | None) -> tuple[str, Configuration]:
        """Return the chosen configuration, else the default, else the only one.

        Raises:
            UserError: there is none of that name, or there are several and none is chosen.
        """
        names = list(self.configurations)
        name = wanted or self.default or (names[0] if len(names) == 1 else None)
        if name is None:
            raise UserError(
                f"--data.source {source}: has {len(names)} data sets, which its README.md names {listed(names)}; "
                f"choose one with --data.config {names[0]}"
            )
        if name not in self.configurations:
            raise UserError(f"--data.config {name}: {source} has no such data set; it has {listed(names)}")
        return name, self.configurations[name]


def read_card(place: Place, paths: Collection[str]) -> DataSetCard | None:
    """Read the configurations in the YAML header of a source's README.md; None if it has none.

    Args:
        paths: the files of the source.

    Raises:
        UserError: they are written in another form than Hugging Face's.
    """
    source = place.source
    if CARD not in paths:
        return None
    try:
        block = FRONT_MATTER.match(place.read(CARD).decode(errors="replace"))
        content = yaml.safe_load(block[1]) if block else None
        configs = content.get("configs") if isinstance(content, dict) else None
        if not configs:
            return None
        found = {str(entry.get("config_name", DEFAULT)): _configuration(entry) for entry in configs}
        marked = [str(entry.get("config_name", DEFAULT)) for entry in configs if entry.get("default")]
    except (yaml.YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--data.source {source}: the configurations in its README.md cannot be read "
            f"({' '.join(str(error).split())[:200]}); mend them, or take README.md away"
        ) from error
    return DataSetCard(found, marked[0] if marked else DEFAULT if DEFAULT in found else None)


def _configuration(entry: Mapping[str, Any]) -> Configuration:
    folder = str(entry.get("data_dir") or "").strip("/").removeprefix("./")
    return Configuration(f"{folder}/" if folder not in ("", ".") else "", _patterns(entry.get("data_files")))


def _patterns(files: Any) -> dict[str, tuple[str, ...]]:
    if not files:
        return {}
    if isinstance(files, Mapping):
        return {str(split): _globs(globs) for split, globs in files.items()}
    if isinstance(files, list) and any(isinstance(item, Mapping) for item in files):
        return {str(item["split"]): _globs(item["path"]) for item in files}
    return {"train": _globs(files)}


def _globs(globs: Any) -> tuple[str, ...]:
    return tuple(map(str, globs)) if isinstance(globs, list) else (str(globs),)
