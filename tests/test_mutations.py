"""The list of breaks that tools/mutate.py makes is of the code as it is now; running it takes long."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tools.mutate import ROOT, Mutation, load_mutations

MUTATIONS = load_mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_breaks_text_is_in_its_file_once_and_its_tests_exist(mutation):
    assert (ROOT / mutation.file).read_text().count(mutation.text) == 1
    assert mutation.text != mutation.replacement
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text()
        assert not name or re.search(rf"def {name.partition('[')[0]}\b", source), test
    assert not mutation.is_stale()


def test_breaks_have_names_of_their_own():
    assert [n for n, count in Counter(m.name for m in MUTATIONS).items() if count > 1] == []


@pytest.mark.parametrize("text", ["no such text", "import"], ids=["not at all", "twice"])
def test_a_text_that_is_not_there_exactly_once_is_stale(text, tmp_path):
    (tmp_path / "code.py").write_text("import os\nimport re\n")
    stale = Mutation("stale", "code.py", text, "", ("tests/test_mutations.py",))
    assert stale.is_stale(tmp_path)
