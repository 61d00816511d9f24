"""For mkdocs: pages that live outside docs/ come along, and links between all of them lead to where they are on the site."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]

#: Where a page of the tree is on the site; those in docs/ keep their names.
OUTSIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "deploy/README.md": "deploy.md",
}
ORIGINS = {site: tree for tree, site in OUTSIDE.items()}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside."""
    for tree, site in OUTSIDE.items():
        files.append(File.generated(config, site, content=(ROOT / tree).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of one page."""
    here = page.file.src_uri
    origin = ORIGINS.get(here, join("docs", here))

    def turned(found: re.Match[str]) -> str:
        text, target, fragment = found[1], found[2], found[3] or ""
        tree = normpath(join(dirname(origin), target))
        site = OUTSIDE.get(tree) or (tree.removeprefix("docs/") if tree.startswith("docs/") else None)
        return (
            f"[{text}]({relpath(site, dirname(here) or '.')}{fragment})" if site else text
        )  # what is not on the site is only named

    return re.sub(r"\[([^\]]*)\]\(((?!https?:)[^)#\s]+)(#[^)\s]*)?\)", turned, markdown)
