"""The README says what the code does."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tables_of_options_and_metrics_are_those_of_the_code():
    tool = runpy.run_path(str(ROOT / "tools" / "readme_tables.py"))
    readme = (ROOT / "README.md").read_text()
    assert "--update-threads" in readme
    assert "aa2c_policy_lag_versions" in readme
    assert tool["with_tables"](readme) == readme, "run: python tools/readme_tables.py"
