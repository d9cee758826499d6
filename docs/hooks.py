"""Bring the tables of `benchmarks/` into the site, under the links that the pages have in the repository."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
KINDS = {".md", ".png"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the tables and pictures, each at its path in the repository."""
    for path in sorted([ROOT / "benchmarks" / "README.md", *(ROOT / "benchmarks" / "results").iterdir()]):
        if path.suffix in KINDS:
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of `docs/` into `benchmarks/` stay inside the site."""
    return markdown.replace("](../benchmarks/", "](benchmarks/")
