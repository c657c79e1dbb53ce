"""What is installed, and from where: tools/venv with a pip that only notes what it is asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTORCH = "https://download.pytorch.org/whl/cpu"


@pytest.fixture
def project(tmp_path):
    """A project's folder whose .venv is there; its python answers whether torch's index does."""
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "tools/constraints.txt", "tools/venv"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script(tmp_path, "pip", 'echo "$@" >> asked')
    return tmp_path


def script(project, name, text):
    path = project / ".venv" / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def asked(project):
    """What pip is asked for when the project is installed, a line a call."""
    subprocess.run(["sh", "-euc", 'set -- "[dev]"; . tools/venv'], cwd=project, check=True)
    lines = (project / "asked").read_text().splitlines() if (project / "asked").exists() else []
    (project / "asked").unlink(missing_ok=True)
    return lines


def test_torch_comes_from_its_index_of_cpu_builds_if_that_answers(project):
    script(project, "python", "exit 0")
    torch, rest = asked(project)
    assert torch.endswith(f"--no-deps --retries 1 --index-url {PYTORCH} torch")
    assert "--constraint tools/constraints.txt" in torch
    assert rest.endswith("--constraint tools/constraints.txt --editable .[dev]")
    assert asked(project) == [], "nothing has changed since"


def test_without_that_index_everything_comes_from_the_usual_one(project):
    script(project, "python", "exit 1")
    [everything] = asked(project)
    assert everything.endswith("--editable .[dev]")


def test_a_failure_of_that_index_is_no_failure(project):
    script(project, "python", "exit 0")
    script(project, "pip", 'echo "$@" >> asked; case "$*" in *index-url*) exit 1;; esac')
    assert len(asked(project)) == 2


@pytest.mark.long
def test_the_wheel_and_the_sdist_hold_what_they_should(tmp_path):
    build = (
        "import sys; from hatchling.build import build_sdist, build_wheel; "
        "build_wheel(sys.argv[1]); build_sdist(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True)
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = message_from_bytes(file.read(metadata))
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"aa2c", metadata.partition("/")[0]}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "aa2c").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} == {
        name for name in names if name.startswith("aa2c/")
    }
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tools/venv", "examples/embed.py"} <= inside
    check_metadata(said)


def check_metadata(said):
    """An index shows nothing that is not there."""
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "MIT"
    uvloop = next(line for line in said.get_all("Requires-Dist") if line.startswith("uvloop"))
    assert "platform_python_implementation == 'CPython'" in uvloop
    readme = said.get_payload()
    assert readme.startswith("# aa2c\n")
    assert "## Use it in a program" in readme
    assert "](" not in readme
    assert ".pictures/" not in readme
