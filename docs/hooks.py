"""Bring the tables of `benchmarks/` and the programs of `examples/` into the site, where the pages link to them."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
TABLES = ("benchmarks/README.md", "benchmarks/results/*.md", "benchmarks/results/*.png")
PROGRAMS = ("examples/*.py", "examples/*.ipynb")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add them, each at its path in the repository."""
    for path in sorted(path for pattern in (*TABLES, *PROGRAMS) for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of `docs/` into these folders stay inside the site."""
    return markdown.replace("](../benchmarks/", "](benchmarks/").replace("](../examples/", "](examples/")
