"""Write the README's tables of options and metrics from the code; a test checks that they are."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric

from aa2c.config.config import Config, flag
from aa2c.config.options import GROUPS
from aa2c.host.memory import RunMemory
from aa2c.host.process import ChildSlot
from aa2c.run.status import Returns, TestReturns, make_status
from aa2c.web.prometheus import RunCollector

README = Path(__file__).parent.parent / "README.md"


def options_table() -> str:
    """Every option with its default, unit and meaning."""
    lines = []
    for group in GROUPS:
        lines += [f"**{group.__doc__}**", "", "| option | default | meaning |", "|---|---|---|"]
        for option in dataclasses.fields(group):
            unit = f" [{option.metadata['unit']}]" if option.metadata["unit"] else ""
            text = option.metadata["help"].replace("|", "\\|")
            lines.append(f"| `{flag(option.name)}` | {_shown(option.default)} | {text}{unit} |")
        lines.append("")
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default in ("", ()):
        return "none"
    if isinstance(default, tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def metric_families() -> list[Metric]:
    """Every family of /metrics, of a run that has not begun."""
    config = Config(workers=1)
    memory = RunMemory(config, "readme")
    try:
        run = dict.fromkeys(("id", "name", "mode", "env", "uptime_s", "state", "stall"), 0)
        updater = ChildSlot("updater", exits=collections.Counter(SIGKILL=1))
        children = updater, ChildSlot("evaluator"), [ChildSlot("worker")]
        tests = {policy: TestReturns() for policy in ("greedy", "sampled")}
        status = make_status(
            run, config, memory.counters, (Returns(), tests), children, memory.ring_status
        )
        return list(RunCollector(lambda: status, memory.counters.lag_histogram).collect())
    finally:
        memory.release()


def metrics_table() -> str:
    """Every metric of /metrics with its type and meaning."""
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    for family in metric_families():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = sorted({label for sample in family.samples for label in sample.labels})
        shown = f"{{{','.join(labels)}}}" if family.type in ("counter", "gauge") and labels else ""
        lines.append(f"| `{family.name}{suffix}{shown}` | {family.type} | {family.documentation} |")
    return "\n".join(lines)


def with_tables(readme: str) -> str:
    """The README with its tables made anew."""
    for name, table in (("options", options_table()), ("metrics", metrics_table())):
        begin, end = f"<!-- {name}: made by tools/readme_tables.py -->", f"<!-- end of {name} -->"
        before, _, rest = readme.partition(begin)
        readme = f"{before}{begin}\n{table.strip()}\n{end}{rest.partition(end)[2]}"
    return readme


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
