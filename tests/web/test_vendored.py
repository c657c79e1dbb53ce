"""What is vendored is what was published, and nothing that the page loads is from elsewhere."""

from __future__ import annotations

import hashlib
import re

import pytest

from aa2c.web.assets import STATIC

PUBLISHED = {  # uPlot 1.6.32, npm
    "uPlot.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def test_vendored_files_are_unchanged():
    found = {path.name: path for path in (STATIC / "vendor").iterdir()}
    assert set(found) == set(PUBLISHED)
    for name, published in PUBLISHED.items():
        assert hashlib.sha256(found[name].read_bytes()).hexdigest() == published, name


OWN = sorted(path.name for path in STATIC.iterdir() if path.is_file())


@pytest.mark.parametrize("file", OWN)
def test_the_page_names_no_other_place_and_sets_no_markup(file):
    assert {"index.html", "page.js", "charts.js", "icon.svg"} <= set(OWN)
    text = (STATIC / file).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(https?:)?//[a-z0-9.-]+\.[a-z]+", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.findall(r"""<script(?![^>]*src=)|\sstyle=|\son[a-z]+=""", text)
