"""The report as one HTML file that needs no other: tables, and the pictures within it.

No script, and nothing from elsewhere. In a dark page the pictures are drawn in dark as well: inverted,
with their hues kept.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from aa2c.report.table import Table

_STYLE = """\
:root { color-scheme: light dark; --text: #1b1b1b; --page: #ffffff; --line: #767676; --head: #f0f0f0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #121212; --line: #8a8a8a; --head: #242424; }
  img { filter: invert(0.93) hue-rotate(180deg); }
}
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
.wide { overflow-x: auto; margin-bottom: 1.5rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; font-size: 1.2rem; padding: 0.5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 0.6rem; text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
thead th { background: var(--head); min-width: 6rem; max-width: 14rem; }
tbody th { font-weight: 600; min-width: 6rem; max-width: 20rem; }
td { white-space: nowrap; }
figure { margin: 0 0 2rem; }
img { width: 100%; height: auto; display: block; }
@media print { :root { --text: #000; --page: #fff; } img { filter: none; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def as_html(
    title: str,
    found: Sequence[Table],
    notes: Sequence[str],
    pictures: Mapping[str, tuple[str, bytes]],
) -> str:
    """The page. `pictures` are PNGs by what they show, each with its words for who cannot see it."""
    parts = [*map(_table, found), *(f"<p>{escape(note)}</p>" for note in notes)]
    parts += [_picture(name, *shown) for name, shown in pictures.items()]
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{chr(10).join(parts)}
</main>
</body>
</html>
"""


def _table(table: Table) -> str:
    """Wider than the screen it scrolls, with the keyboard as well."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in table.rows
    )
    title = escape(table.title)
    return (
        f'<div class="wide" role="region" aria-label="{title}" tabindex="0">\n<table>\n'
        f"<caption>{title}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
        "</table>\n</div>"
    )


def _picture(name: str, words: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<h2>{escape(name)}</h2>\n<figure><img alt="{escape(words)}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )
