"""Regenerate the tables of options, presets and metrics in aa2c/docs; a test checks that they are current.

Each table is delimited by two Markdown reference definitions, which renderers do not show.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.metrics_core import Metric

from aa2c.config.config import Config, flag
from aa2c.config.option import help_of
from aa2c.config.options import GROUPS
from aa2c.config.peers import NAMES
from aa2c.config.toml import load_config, preset_names, preset_says
from aa2c.envs.recipes import KINDS
from aa2c.host.incarnation import ChildSlot
from aa2c.host.memory import RunMemory
from aa2c.host.usage import ProcessUsage
from aa2c.run.diagnosis import RULES
from aa2c.run.quantities import QUANTITIES
from aa2c.run.status import Returns, TestReturns, make_status
from aa2c.web.prometheus import RunCollector

LABELS = {f"aa2c_{q.gauge or q.counter}": set(q.labels) for q in QUANTITIES}
DOCS = Path(__file__).parent.parent / "aa2c" / "docs"


def options_table() -> str:
    """Every option with its default, unit and meaning."""
    lines = []
    for group in GROUPS:
        title = (group.__doc__ or "").rstrip(".")
        lines += [f"## {title}", "", "| option | default | meaning |", "|---|---|---|"]
        for option in dataclasses.fields(group):
            text = help_of(option).replace("|", "\\|")
            lines.append(f"| `{flag(option.name)}` | {_shown(option.default)} | {text} |")
        lines.append("")
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default in ("", (), {}):
        return "none"
    if isinstance(default, tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def metric_families() -> list[Metric]:
    """Every family of /metrics, for a run that has not started."""
    config = Config(workers=1)
    memory = RunMemory(config, "docs")
    try:
        run = dict.fromkeys(("id", "name", "mode", "env", "uptime_s", "state", "stall"), 0)
        engine: Any = SimpleNamespace(
            telemetry=memory.counters,
            updater=ChildSlot("updater", exits=collections.Counter(SIGKILL=1)),
            evaluator=ChildSlot("evaluator"),
            workers=[ChildSlot("worker")],
            ring_status=memory.ring_status,
            hosts=list,
            bridge=ChildSlot("engine"),
            usage=ProcessUsage(),
        )
        tests = {policy: TestReturns() for policy in ("greedy", "sampled")}
        status = make_status(run, config, engine, (Returns(), tests)) | {"warnings": []}
        return list(RunCollector(lambda: status, memory.counters.lag_histogram).collect())
    finally:
        memory.release()


def metrics_table() -> str:
    """Every metric of /metrics with its type and meaning."""
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    for family in metric_families():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        found = {label for sample in family.samples for label in sample.labels}
        labels = sorted(found | LABELS.get(family.name, set()))
        shown = f"{{{','.join(labels)}}}" if family.type in ("counter", "gauge") and labels else ""
        lines.append(f"| `{family.name}{suffix}{shown}` | {family.type} | {family.documentation} |")
    return "\n".join(lines)


def readings_table() -> str:
    """The quantities of learning, with what a practitioner reads from each."""
    lines = ["| in `/status` | what it is | what it tells |", "|---|---|---|"]
    lines += [f"| `{q.path}` | {q.help} | {q.reading} |" for q in QUANTITIES if q.reading]
    return "\n".join(lines)


def warnings_table() -> str:
    """The warnings about learning, with their advice."""
    lines = ["| warning | begins where | what to try |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{r.name}` | {r.when} | {r.advice} |" for r in RULES])


def presets_table() -> str:
    """Every preset with its environment, budget and the first paragraph of its comment."""
    lines = ["| preset | environment | env steps | note |", "|---|---|---|---|"]
    for name in preset_names():
        config = load_config(preset=name)
        env = "any" if name.partition("/")[2] in KINDS else f"`{config.env}`"
        says = preset_says(name).replace("|", "\\|")
        lines.append(f"| `{name}` | {env} | {config.total_env_steps:,} | {says} |")
    return "\n".join(lines)


def names_table() -> str:
    """Options with the names that users of other libraries know them by."""
    others = collections.defaultdict(list)
    for theirs, ours in NAMES.items():
        others[ours].append(f"`{theirs}`")
    lines = ["| here | elsewhere |", "|---|---|"]
    return "\n".join(
        lines + [f"| `{flag(ours)}` | {', '.join(others[ours])} |" for ours in sorted(others)]
    )


TABLES = {
    "coming-from.md": {"names": names_table},
    "options.md": {"options": options_table},
    "presets.md": {"presets": presets_table},
    "metrics.md": {
        "readings": readings_table,
        "warnings": warnings_table,
        "metrics": metrics_table,
    },
}


def with_table(page: str, name: str, table: str) -> str:
    """The page with the named table replaced. Raises `ValueError` if it has no place for it."""
    begin = f"[{name}-begin]: # (generated by tools/docs_tables.py)"
    end = f"[{name}-end]: # (end)"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no place for the table of {name}")
    return f"{before}{begin}\n\n{table.strip()}\n\n{end}{after}"


def current(file: str) -> str:
    """A page with its tables up to date."""
    page = (DOCS / file).read_text()
    for name, make in TABLES[file].items():
        page = with_table(page, name, make())
    return page


if __name__ == "__main__":
    for file in TABLES:
        (DOCS / file).write_text(current(file))
