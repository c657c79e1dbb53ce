"""The simulation of scale against runs: `bench` makes one in each of its rounds, beside the stages.

    python tools/compare_scale.py measure out --workers 1 2 4 8
    python tools/compare_scale.py measure out --workers 2 4 --nodes 2
    python tools/compare_scale.py tell out/*.json
    python tools/compare_scale.py draw aa2c/docs/scale.md aa2c/docs/scale.png

With `--nodes`, workers are on as many hosts of a Ray cluster with one node more, its head, all on this
machine. Each round is predicted from its own stages; told are medians over the rounds, as rows for the
page's tables, and drawn is what these tables say.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator
from ray_nodes import Nodes, token_in
from scale_model import Model
from sim_scale import Bench, predict

from aa2c.report.panels import COLOURS

# Nodes on one machine have its cores together, and no network.
LOOPBACK: dict[str, Any] = {"one_machine": True, "rtt_ms": 0.0, "gbps": 1e3, "host_gbps": 1e3}
MODES = ("grad", "traj")
PLACES = {"local": "one machine", "ray": "hosts of a Ray cluster on one machine"}

FIGURES = ("predicted", "measured")
TICKS = [1e3 * factor for factor in (1, 2, 5, 10, 20, 50, 100, 200, 500)]

Key = tuple[str, str, int]  # engine, mode, workers


@dataclass
class Compared:
    """Env steps per second of one configuration, a number for each round."""

    predicted: list[float]
    measured: list[float]

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured; the rounds' median."""
        pairs = zip(self.predicted, self.measured, strict=True)
        return statistics.median(predicted / measured - 1 for predicted, measured in pairs)


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options and variables for the processes that use it; none without nodes."""
    if not nodes:
        yield [], {}
        return
    with tempfile.TemporaryDirectory(prefix="aa2c-scale-") as name:
        variables = token_in(Path(name))
        made = Nodes(Path(name), variables | {"RAY_TMPDIR": "/tmp"}, nodes)
        try:
            yield ["--engine", "ray", "--address", made.address], variables
        finally:
            made.close()


def measure(options: argparse.Namespace) -> None:
    """Write what `bench --json` prints, a file for each configuration and repeat."""
    options.out.mkdir(exist_ok=True, parents=True)
    engine = "ray" if options.nodes else "local"
    bench = [sys.executable, "-m", "aa2c", "bench", "--json"]
    bench += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    todo = itertools.product(range(options.repeats), options.modes, options.workers)
    with cluster(options.nodes) as (of_engine, variables):
        for repeat, mode, workers in todo:
            mine = ["--mode", mode, "--workers", str(workers)]
            if options.nodes:
                mine += ["--workers-per-host", str(-(-workers // options.nodes))]
            print(f"{repeat + 1} of {options.repeats}:", *mine, file=sys.stderr, flush=True)
            done = subprocess.run(
                [*bench, *of_engine, *mine],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            name = f"{engine}-{mode}-{workers}-{time.time_ns()}.json"
            (options.out / name).write_text(done.stdout)


def compare(paths: Sequence[Path]) -> dict[Key, Compared]:
    """Rounds of the same configuration together, whatever file they are in."""
    found: dict[Key, Compared] = defaultdict(lambda: Compared([], []))
    for path in paths:
        bench = Bench(path)
        engine, workers = bench.config.engine, bench.config.workers
        place = LOOPBACK if engine != "local" else {}
        for rates in bench.rounds():
            numbers = bench.numbers(workers, rates) | place
            model = Model(workers=workers, engine=engine, **numbers)
            it = found[engine, bench.config.mode, workers]
            it.predicted.append(predict(model)["env_steps_per_s"])
            it.measured.append(rates["whole"])
    return dict(sorted(found.items()))


def tell(found: dict[Key, Compared]) -> None:
    """Print a table."""
    print("| engine | mode | workers | predicted, env steps/s | measured | error | rounds |")
    print("|---|---|---|---|---|---|---|")
    for (engine, mode, workers), it in found.items():
        low, high = min(it.measured), max(it.measured)
        predicted, middle = statistics.median(it.predicted), statistics.median(it.measured)
        figures = f"{predicted:,.0f} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {it.error:+.0%}"
        row = f"| {engine} | {mode} | {workers} | {figures} | {len(it.measured)} |"
        print(row.replace("-", "−"))


def tables_of(page: Path) -> dict[Key, tuple[float, float]]:
    """What was predicted and measured, by the tables that have columns for it."""
    found: dict[Key, tuple[float, float]] = {}
    header: list[str] = []
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        header = header or [cell.partition(",")[0] for cell in cells]
        row = dict(zip(header, cells, strict=True))
        if {"engine", "predicted", "measured"} <= row.keys() and row["engine"] in PLACES:
            workers = int(row["workers"].split()[0])
            figures = (float(row[name].split()[0].replace(",", "")) for name in FIGURES)
            predicted, measured = figures
            found[row["engine"], row["mode"], workers] = predicted, measured
    return found


def draw(found: dict[Key, tuple[float, float]], path: Path) -> None:
    """Prediction and runs by number of workers, a panel for each engine."""
    engines = sorted({engine for engine, _, _ in found})
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(engines), sharey=True, squeeze=False)[0]
    for axes, engine in zip(panels, engines, strict=True):
        _draw_panel(axes, {key[1:]: it for key, it in found.items() if key[0] == engine})
        axes.set_title(PLACES[engine], loc="left", fontsize=10)
    panels[0].set_ylabel("env steps per second")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw_panel(axes: Axes, found: dict[tuple[str, int], tuple[float, float]]) -> None:
    for mode, colour in zip(MODES, COLOURS, strict=False):
        workers = sorted(number for of_mode, number in found if of_mode == mode)
        for name, look, which in (("predicted", "o--", 0), ("run", "s-", 1)):
            rates = [found[mode, number][which] for number in workers]
            fill = colour if which else "white"
            axes.plot(workers, rates, look, color=colour, mfc=fill, label=f"{mode}, {name}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({number for _, number in found})))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("workers")
    axes.grid(alpha=0.3)


def main() -> None:
    """Parse arguments, and do it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_measure = commands.add_parser("measure")
    to_measure.add_argument("out", type=Path)
    to_measure.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    to_measure.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    to_measure.add_argument("--nodes", type=int, default=0, help="0: without Ray")
    to_measure.add_argument("--repeats", type=int, default=3, help="of all, one after the other")
    to_measure.add_argument("--rounds", type=int, default=1)
    to_measure.add_argument("--seconds", type=float, default=1.5)
    to_tell = commands.add_parser("tell")
    to_tell.add_argument("files", type=Path, nargs="+")
    to_draw = commands.add_parser("draw")
    to_draw.add_argument("page", type=Path)
    to_draw.add_argument("picture", type=Path)
    options = parser.parse_args()
    match options.command:
        case "measure":
            measure(options)
        case "tell":
            tell(compare(options.files))
        case "draw":
            draw(tables_of(options.page), options.picture)


if __name__ == "__main__":
    main()
