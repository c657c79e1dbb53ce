"""The examination of this machine; what is wrong is made wrong for real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from aa2c.cli import doctor
from aa2c.config.config import Config


def examine(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nimport sys\nfrom aa2c.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def test_a_machine_that_runs_these_tests_has_no_failing_check():
    result = examine("--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert set(findings) == set(doctor.CHECKS)
    assert {f["verdict"] for f in findings.values()} <= {"ok", "warn"}, result.stdout
    assert result.returncode == 0
    assert "torch 2." in findings["packages"]["found"]
    assert findings["Atari"]["found"] == "Pong gives observations of shape (1, 4, 84, 84)"


def test_a_broken_package_a_taken_port_and_few_files_are_findings_with_a_remedy(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    broken = (
        "import resource, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    )
    with socket.socket() as taken:
        taken.bind((Config().host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = f"{broken}\nimport aa2c.cli.doctor\naa2c.cli.doctor.Config = lambda **o: C(port={port}, **o)"
        result = examine(before=f"from aa2c.config.config import Config as C\n{before}")
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (1, "")
    for start, remedy in (
        ("fail torch", "reinstall aa2c"),
        ("warn open files", "ulimit -n"),
        (f"warn port         {port} is taken", "python -m aa2c top"),
    ):
        at = next(i for i, line in enumerate(lines) if line.startswith(start))
        assert remedy in lines[at + 1], lines
    assert "need attention" in lines[-1]


def test_every_finding_that_is_not_ok_has_a_remedy():
    for finding in doctor.examine():
        assert finding.verdict == "ok" or finding.remedy, finding


def test_versions_that_do_not_fit_are_named(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy>=99", "no-such-package"])
    verdict, found, remedy = doctor._versions()
    assert verdict == "fail"
    assert "numpy" in found
    assert "no-such-package is missing" in found
    assert remedy
