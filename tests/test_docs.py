"""README and docs: generated tables are current, links lead somewhere, code compiles, README is short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from aa2c.web.docs import slugs
from tools import docs_tables

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(docs_tables.DOCS.glob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")
OUTSIDE = ("http://", "https://")


def tokens(page: Path) -> list[Token]:
    """Every token of a page, those inside paragraphs too."""
    blocks = MARKDOWN.parse(page.read_text())
    return [token for block in blocks for token in (block, *(block.children or []))]


def links(page: Path) -> list[str]:
    found = [token.attrGet("href") or token.attrGet("src") for token in tokens(page)]
    return [str(link) for link in found if link]


def anchors(page: Path) -> set[str]:
    return {slug for slug in slugs(MARKDOWN.parse(page.read_text())) if slug}


@pytest.mark.parametrize("file", docs_tables.TABLES)
def test_generated_tables_are_current(file):
    page = (docs_tables.DOCS / file).read_text()
    assert "|---|" in page
    assert docs_tables.current(file) == page, "run: python -m tools.docs_tables"


def test_a_page_without_a_place_for_its_table_is_refused():
    with pytest.raises(ValueError, match="no place for the table of options"):
        docs_tables.with_table("# Options", "options", "")


def test_the_readme_has_at_most_170_lines():
    assert len(README.read_text().splitlines()) <= 170


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    for link in links(page):
        if link.startswith(OUTSIDE):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_docs_link_only_to_what_ships_with_them(page):
    """A link out of aa2c/docs would be dead in an installed package and at /docs/."""
    inside = [link for link in links(page) if not link.startswith(OUTSIDE)]
    assert [link for link in inside if ".." in link or link.startswith("/")] == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_each_page_starts_with_a_title_and_what_it_is_for(page):
    title, blank, purpose, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert not blank
    assert re.match(r"[A-Z`]", purpose), page.name


def test_every_page_is_in_the_index():
    index = docs_tables.DOCS / "index.md"
    assert {link.partition("#")[0] for link in links(index)} >= {
        page.name for page in PAGES[1:] if page != index
    }


def test_python_in_the_docs_compiles():
    blocks = [t for page in PAGES for t in tokens(page) if t.type == "fence" and t.info == "python"]
    assert blocks
    for block in blocks:
        ast.parse(block.content)


def test_files_that_the_docs_name_exist():
    """Examples, tools and tests are named by path, because they do not ship with the docs."""
    named = re.compile(r"`((?:examples|tools|tests)/[\w./]+\.\w+)`")
    found = {name for page in PAGES for name in named.findall(page.read_text())}
    assert found
    assert {name for name in found if not (ROOT / name).is_file()} == set()
