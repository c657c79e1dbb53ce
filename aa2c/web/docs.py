"""The documentation that ships with the package, rendered from Markdown to HTML for /docs/.

Only shipped files are served: requests are looked up in a table of their names, which rules out path
traversal. Raw HTML in a page is shown as text, and nothing rendered needs inline styles.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from markdown_it import MarkdownIt
from markdown_it.token import Token

FOLDER = resources.files("aa2c") / "docs"
INDEX = "index"
FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · aa2c</title>
<link rel="icon" href="../static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../static/docs.css">
</head>
<body>
<nav aria-label="docs"><a href="../">Run</a> · <a href="./">Docs</a></nav>
<main>
{body}
</main>
</body>
</html>
"""


@cache
def pictures() -> dict[str, bytes]:
    """The pictures in pages, by their names."""
    files = (file for file in FOLDER.iterdir() if file.name.endswith(".png"))
    return {file.name: file.read_bytes() for file in files}


@cache
def page_names() -> frozenset[str]:
    """The names of all pages, without suffix."""
    files = (file.name for file in FOLDER.iterdir())
    return frozenset(name.removesuffix(".md") for name in files if name.endswith(".md"))


def page(name: str) -> str | None:
    """The HTML of a page, by its name with or without `.md`; None if there is no such page."""
    name = name.removesuffix(".md")
    return _rendered(name) if name in page_names() else None


@cache  # only of names that exist, so that no client can fill it
def _rendered(name: str) -> str:
    return render((FOLDER / f"{name}.md").read_text("utf-8"))


def render(text: str) -> str:
    """A complete HTML document; its title is the first heading, and every heading has an anchor."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    title = "Docs"
    for position, (token, slug) in enumerate(zip(tokens, slugs(tokens), strict=True)):
        if slug is None:
            continue
        token.attrSet("id", slug)
        if token.tag == "h1":
            title = tokens[position + 1].content
    body = markdown.renderer.render(tokens, markdown.options, {})
    return FRAME.format(title=html.escape(title), body=body)


def slugs(tokens: Sequence[Token]) -> list[str | None]:
    """The anchor of each heading token, as code hosts form it; None for all other tokens."""
    found: list[str | None] = []
    for position, token in enumerate(tokens):
        is_heading = token.type == "heading_open"
        found.append(_slug(tokens[position + 1].content) if is_heading else None)
    return found


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
