"""Who may import what: the architecture, as assertions on the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aa2c
from aa2c.modes.mode import MODES

ROOT = Path(aa2c.__file__).parent
SOURCES = {str(p.relative_to(ROOT)): ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}


def imports(file):
    """Every module or name that a file imports, dotted, wherever in the file."""
    found = set()
    for node in ast.walk(SOURCES[file]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_any(file, *modules):
    return any(f"{name}.".startswith(f"{m}.") for name in imports(file) for m in modules)


def uses(file, name):
    return any(
        getattr(node, "attr", None) == name or getattr(node, "id", None) == name
        for node in ast.walk(SOURCES[file])
    )


@pytest.mark.parametrize(
    ("modules", "homes"),
    [
        (["multiprocessing.shared_memory"], ["shm/segment.py"]),
        (["msgpack"], ["shm/slot.py", "shm/queue.py", "host/cluster/frames.py"]),
        (["ray"], ["host/cluster/ray.py", "host/cluster/ray_link.py"]),
        (["aiohttp"], ["web/"]),
        (["markdown_it"], ["web/docs.py"]),
        (["prometheus_client"], ["web/"]),
        (["uvloop"], ["run/event_loop.py"]),
        (["gymnasium", "ale_py"], ["envs/", "host/env_processes.py"]),
        (["structlog"], ["log.py"]),
        (
            ["torch"],
            [
                "policy/",
                "learn/",
                "modes/",
                "roles/",
                "checkpoints/tensors.py",
                "checkpoints/trained.py",
                "host/child.py",
                "cli/main.py",
                "cli/doctor.py",
                "cli/export.py",
                "cli/bench/stages.py",
            ],
        ),
        (["matplotlib"], ["report/"]),
        (["imageio", "imageio_ffmpeg"], ["learn/video.py", "run/trackers.py"]),
        (["tensorboardX", "wandb"], ["run/trackers.py"]),
        (["aa2c.host.engine"], ["orchestrator.py"]),
        (["aa2c.orchestrator", "aa2c.Orchestrator"], ["cli/", "__init__.py", "training.py"]),
        (["aa2c.train", "aa2c.training"], ["__init__.py"]),
        (["pandas"], ["report/metrics.py"]),
    ],
    ids=lambda names: " ".join(names)[:40],
)
def test_these_modules_are_imported_only_in_their_homes(modules, homes):
    users = {file for file in SOURCES if imports_any(file, *modules)}
    assert users, "the rule watches nothing"
    assert {file for file in users if not file.startswith(tuple(homes))} == set()


def test_the_package_has_no_modules_at_its_top_but_these():
    top = {file for file in SOURCES if "/" not in file}
    assert top == {
        "__init__.py",
        "__main__.py",
        "clock.py",
        "engine.py",
        "errors.py",
        "failpoint.py",
        "log.py",
        "machine.py",
        "orchestrator.py",
        "ports.py",
        "shared_model.py",
        "strict_json.py",
        "training.py",
        "version.py",
    }


def test_no_mode_is_asked_for_by_its_name_but_in_its_own_place():
    """What differs between modes is a fact of the mode: nowhere else is a mode compared."""
    names = set(MODES)

    def names_a_mode(node):
        parts = [node.left, *node.comparators]
        texts = {part.value for part in parts if isinstance(part, ast.Constant)}
        asks = any(getattr(part, "attr", getattr(part, "id", "")) == "mode" for part in parts)
        return asks or bool(texts & names)

    found = [
        (file, ast.unparse(node))
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and names_a_mode(node)
    ]
    assert [(file, code) for file, code in found if "not in FACTS" not in code] == []


def test_nothing_that_learns_sets_attributes_by_name():
    rooms = ("learn/", "modes/", "policy/", "roles/")
    assert {f for f in SOURCES if f.startswith(rooms) and uses(f, "setattr")} == set()


def words_in_code(tree):
    """Every identifier, imported name and string of a file, but for docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for node in ast.walk(tree):
        for _, field in ast.iter_fields(node):
            for value in field if isinstance(field, list) else [field]:
                if isinstance(value, str) and id(node) not in docstrings:
                    yield value.lower()


MEMORY_OF_ONE_HOST = ("segment", "eventfd", "pidfd", "shared_memory")


def names_memory_of_one_host(tree):
    return {word for word in words_in_code(tree) if any(m in word for m in MEMORY_OF_ONE_HOST)}


def test_memory_of_one_host_is_named_only_by_the_local_engine_and_who_measures_it():
    homes = ("host/", "shm/", "cli/bench/", "cli/doctor.py")
    named = {file: names_memory_of_one_host(tree) for file, tree in SOURCES.items()}
    assert any(named[file] for file in SOURCES if file.startswith("host/")), "watches nothing"
    assert {f: words for f, words in named.items() if words and not f.startswith(homes)} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from a import Segment",
        "import multiprocessing.shared_memory",
        "import a as pidfd",
        "def f(segment): ...",
        "class EventFd: ...",
        "f(segments=1)",
        "os.eventfd(0)",
        "log('of a segment')",
        "f'{x} shared_memory'",
        "match x:\n    case A(pidfd=1): ...",
    ],
)
def test_memory_of_one_host_would_be_seen(code):
    assert names_memory_of_one_host(ast.parse(code))


@pytest.mark.parametrize("code", ['"""A segment."""', "# a segment", "class A:\n    'A pidfd.'"])
def test_docstrings_and_comments_may_name_memory_of_one_host(code):
    assert not names_memory_of_one_host(ast.parse(code))


@pytest.mark.parametrize("name", ["add_signal_handler", "set_wakeup_fd", "sigwait"])
def test_signals_are_handled_only_in_the_command_line(name):
    assert {file for file in SOURCES if uses(file, name)} <= {"cli/signals.py"}


def test_signal_signal_is_called_only_in_the_command_line():
    homes = ("cli/signals.py", "host/env_processes.py")
    for file, tree in SOURCES.items():
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert file in homes or "signal.signal" not in calls, file
        assert file in homes or "signal.signal" not in imports(file), file


@pytest.mark.parametrize(
    "arguments", [["-c", "import aa2c"], ["-m", "aa2c", "serve", "--help"]], ids=" ".join
)
def test_torch_and_gymnasium_are_not_imported_for(arguments):
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "aa2c" in loaded
    assert "numpy" not in loaded or "serve" in arguments, "import aa2c is instant"
    assert loaded.isdisjoint({"torch", "gymnasium", "ale_py", "aiohttp", "matplotlib", "imageio"})


@pytest.mark.parametrize("file", SOURCES)
def test_a_file_has_at_most_350_lines_or_its_docstring_says_why(file):
    docstring = ast.get_docstring(SOURCES[file]) or ""
    assert len((ROOT / file).read_text().splitlines()) <= 350 or " lines" in docstring


@pytest.mark.parametrize("file", SOURCES)
def test_a_function_has_at_most_50_lines(file):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for node in ast.walk(SOURCES[file]) if isinstance(node, kinds)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 50] == []
