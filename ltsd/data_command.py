"""`python -m ltsd data`: what a source holds, and what of it would serve for what."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from ltsd.config import Config, DataConfig
from ltsd.data import description, load_splits
from ltsd.data.sources import load_source
from ltsd.data.units import ITEMS, kind_of
from ltsd.errors import UserError
from ltsd.files import check_writable, publishing
from ltsd.flags import values_set
from ltsd.tasks import TASKS, fitting


@dataclass(frozen=True)
class DataFlags:
    """The part of the configuration that decides which images are read."""

    data: DataConfig = field(default_factory=DataConfig)

    @classmethod
    def presets(cls) -> dict[str, "DataFlags"]:
        """Their defaults by kind of source."""
        return {kind: cls(config.data) for kind, config in Config.presets().items()}


def data_command(parsed: argparse.Namespace) -> int:
    """`python -m ltsd data`."""
    fixed = values_set(parsed, DataFlags())
    if fixed.setdefault("data.source", parsed.source) != parsed.source:
        raise UserError(f"--data.source {fixed['data.source']}: the source is {parsed.source} already; leave one out")
    data = Config.preset(parsed.source).override(fixed).data
    check_writable(parsed.picture)
    if parsed.picture.resolve().is_relative_to(Path(parsed.source).resolve()):
        raise UserError(f"--picture {parsed.picture}: would lie among the images that are read; give a path elsewhere")
    source = load_source(data, check=True)
    try:
        splits = load_splits(data)
    except UserError:
        print("\n".join(source.reading.lines(ITEMS[kind_of(source.train.images)])))
        raise
    print("\n".join([*description.introduction(splits, data), *description.class_rows(splits, data)]))
    with publishing(parsed.picture) as temporary, temporary.open("wb") as file:
        figure = TASKS[fitting(splits.complete)].show_data(splits.complete, splits.class_names)
        figure.savefig(file, format="png")
    print(f"{splits.complete.items} of every class: {parsed.picture}")
    return 0
