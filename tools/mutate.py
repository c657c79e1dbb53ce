"""Mutation testing with hand-written mutations: does a test catch each?

    python tools/mutate.py                    # all of tools/mutations.toml
    python tools/mutate.py rollback release   # those whose names contain one of these words
    python tools/mutate.py --check            # only check that each text occurs once in its file

A mutation replaces one text in one file of a temporary copy of the working tree; one of its tests must
then fail there. All tests must pass before the first mutation. A mutation that no test catches SURVIVED;
one whose text does not occur exactly once is stale. The exit code is 1 for either.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTATIONS = ROOT / "tools/mutations.toml"
PASSED, FAILED = 0, 1  # pytest's exit codes; greater ones mean that no test was run


@dataclass(frozen=True)
class Mutation:
    """`text` in `file` becomes `replacement`, and one of `tests` must fail."""

    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]

    def is_stale(self, root: Path = ROOT) -> bool:
        path = root / self.file
        return not path.is_file() or path.read_text().count(self.text) != 1

    def apply(self, root: Path) -> None:
        path = root / self.file
        path.write_text(path.read_text().replace(self.text, self.replacement))


def load_mutations(words: Sequence[str] = ()) -> list[Mutation]:
    """The mutations whose names contain one of the words; all of them without words."""
    tables = tomllib.loads(MUTATIONS.read_text())["mutation"]
    found = [Mutation(**table | {"tests": tuple(table["tests"])}) for table in tables]
    return [m for m in found if not words or any(word in m.name for word in words)]


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A temporary copy of the working tree, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="mutate-") as directory:
        copy = Path(directory)
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():  # and not deleted
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        yield copy


def run_tests(tree: Path, tests: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Pytest's exit code, None if it took too long, and its line on the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "250"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, f"timed out after {timeout_s:g} s"
    lines = ["", *output.splitlines()]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return process.returncode, (failures or lines)[-1]


def outcome_of(mutation: Mutation, timeout_s: float) -> tuple[str, str]:
    """A mutation's outcome, and the first failure that it caused."""
    with copied_tree() as tree:
        if mutation.is_stale(tree):
            return "stale", f"does not occur exactly once in {mutation.file}"
        mutation.apply(tree)
        code, detail = run_tests(tree, mutation.tests, timeout_s)
    if code == PASSED:
        return "SURVIVED", " ".join(mutation.tests)
    is_caught = code is None or code <= FAILED  # below 0: a signal ended it
    return "caught" if is_caught else "not run", detail


def main() -> int:
    """Parse arguments, run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="parts of names; by default all mutations")
    parser.add_argument("--check", action="store_true", help="only check that texts occur")
    parser.add_argument(
        "--timeout-s", type=float, default=300, help="for the tests of one mutation"
    )
    arguments = parser.parse_args()
    mutations = load_mutations(arguments.words)
    stale = [mutation.name for mutation in mutations if mutation.is_stale()]
    if arguments.check:
        print(f"{len(mutations)} mutations, stale: {', '.join(stale) or 'none'}")
        return int(bool(stale) or not mutations)
    tests = sorted({test for m in mutations if m.name not in stale for test in m.tests})
    with copied_tree() as tree:
        code, detail = run_tests(tree, tests, arguments.timeout_s * max(1, len(tests)))
    if code != PASSED:
        print(f"the tests fail without any mutation: {detail}")
        return 1
    outcomes: Counter[str] = Counter()
    for mutation in mutations:
        outcome, detail = outcome_of(mutation, arguments.timeout_s)
        outcomes[outcome] += 1
        print(f"{mutation.name:60}  {outcome:8}  {detail}", flush=True)
    print(f"score: {outcomes['caught']} of {len(mutations)} caught; {dict(outcomes)}")
    return int(outcomes["caught"] < len(mutations))


if __name__ == "__main__":
    sys.exit(main())
