"""The code of the guides, and of the page on embedding, runs, with small budgets."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.test_docs import tokens
from tools.docs_tables import DOCS

SMALLER = {
    r"total_env_steps=[\d_]+": "total_env_steps=1000, eval_interval_s=0",
    r"num_envs=\d+": "num_envs=2",
    r"range\([\d_]+\)": "range(20)",
}
PAGES = [DOCS / "embedding.md", *sorted(DOCS.glob("guide-*.md"))]


def code(page, language):
    return [token.content for token in tokens(page) if token.info == language]


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page in PAGES if code(page, "python")], ids=lambda page: page.stem
)
def test_the_code_of_a_guide_runs(page, tmp_path, monkeypatch, capsys):
    program = "\n\n".join(code(page, "python"))
    for pattern, small in SMALLER.items():
        program = re.sub(pattern, small, program)
    assert "total_env_steps=1000" in program
    monkeypatch.chdir(tmp_path)
    # In this process, where children come up fast; its classes cannot be imported, as in a notebook.
    exec(compile(program, page.name, "exec", dont_inherit=True), {"__name__": "guide"})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("page", "script"), [(page.stem, script) for page in PAGES for script in code(page, "sh")]
)
def test_the_shell_scripts_of_a_guide_are_valid(page, script):
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
