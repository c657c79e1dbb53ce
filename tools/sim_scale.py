"""A run by number of workers, simulated: throughput, policy lag, and what saturates.

    python -m aa2c bench --mode traj --json > bench.json
    python tools/sim_scale.py --bench bench.json --workers 1 2 4 8
    python tools/sim_scale.py --bench bench.json --engine ray --workers 10 100 1000 10000

Rates come from the bench, or from flags, which win. Utilizations are shares of the simulated time: the
workers' in acting, which counts waiting for a core; the engine's link in its busier direction; the
bridge; the updater. See aa2c/docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from scale_model import Model
from scale_queues import Simulation

from aa2c.config.values import flag

LEAST_S = 10.0  # of simulated time
MAY_BE_ZERO = {
    "batch_records", "overhead_us", "rtt_ms", "presum", "one_machine", "call_engine_us", "call_host_us",
    "record_engine_us", "record_host_us", "params_engine_us", "params_host_us",
}  # fmt: skip
ROUNDS = 8  # at least, of all credits and of an update


class Bench:
    """What `bench --json` has measured: the model's numbers, for any number of workers."""

    def __init__(self, path: Path) -> None:
        from aa2c.cli.bench.stages import describe  # not before: it imports torch
        from aa2c.config.config import Config

        self.document = json.loads(path.read_text())
        self.config = Config(**self.document["config"])
        self._record_bytes, self._params_bytes, _, _ = describe(self.config)

    def rounds(self) -> Iterator[dict[str, float]]:
        """The rates of one round after the other; those of the link are of all."""
        every = self.document["every_round"]
        for number in range(len(every["whole"])):
            yield {name: rates[min(number, len(rates) - 1)] for name, rates in every.items()}

    def numbers(self, workers: int, rates: dict[str, float]) -> dict[str, Any]:
        """What was measured with these rates, or follows from the options with so many workers."""
        config, cores = replace(self.config, workers=workers), self.document["cores"]
        found: dict[str, Any] = {
            "mode": config.mode,
            "env_rate": rates["env"] / cores,
            "act_rate": rates["act"] / cores,
            "learn_rate": rates["learn"] / cores,
            "steps": config.num_envs * config.num_steps,
            "slots": config.ring_slots,
            "cores": cores,
            "update_threads": config.update_threads,
            "workers_per_host": config.workers_per_host,
            "record_bytes": self._record_bytes,
            "params_bytes": self._params_bytes,
            "overhead_us": self._record_bytes / rates["ring"] / 2,  # MB/s is bytes per us; of two
        }
        if config.mode == "traj":
            from aa2c.modes.traj import minibatches_per_pass, rollouts_per_batch

            found["batch_records"] = rollouts_per_batch(config) if config.batch_steps else 0
            found["optimizer_steps"] = config.update_epochs * minibatches_per_pass(config)
        return found | _of_link(rates, cores)


def _of_link(rates: dict[str, float], cores: int) -> dict[str, float]:
    """CPU times, as long as they take beside the other programs that slowed the stages down, too."""
    if "link_calls" not in rates:
        return {}
    slower = max(1.0, cores / rates["cores"])
    found = {"copy_mbps": rates["memcpy_record"] / slower}
    for end, way in (("engine", "here"), ("host", "there")):
        call = rates[f"link_call_{way}_us"]
        found[f"call_{end}_us"] = slower * call
        for what, moved in (("record", "record"), ("params", "parameters")):
            more = max(0.0, rates[f"link_{moved}_{way}_us"] - call)
            found[f"{what}_{end}_us"] = slower * more
    return found


def seconds_for(model: Model) -> float:
    """Long enough for a steady state: all credits and some updates several times over."""
    rate = min(model.capacities().values())
    records = max(model.workers * model.slots, model.units_per_update)
    return max(LEAST_S, ROUNDS * records * model.steps / rate)


def predict(model: Model, seconds: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """Simulate one configuration; 0 seconds: as long as it takes to be steady."""
    simulation = Simulation(model, seed)
    simulation.run(seconds or seconds_for(model))
    return simulation.result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--bench", type=Path, help="what bench --json printed")
    parser.add_argument("--seconds", type=float, default=0.0, help="simulated; 0: until steady")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document per line")
    choices = {"engine": ("local", "ray"), "mode": ("traj", "grad")}
    for field in fields(Model):
        if field.name == "workers":
            continue
        name, default = flag(field.name), field.default
        about = f"default: {default}"
        if isinstance(default, bool):
            parser.add_argument(name, action="store_true", default=None, help=about)
        else:
            allowed = choices.get(field.name)
            parser.add_argument(name, type=type(default), choices=allowed, help=about)
    return parser


def _models(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[Any, list[Model]]:
    args = parser.parse_args(argv)
    given = {
        field.name: value
        for field in fields(Model)
        if field.name != "workers" and (value := getattr(args, field.name)) is not None
    }
    if min(args.workers) < 1:
        parser.error("--workers must be positive")
    bench = Bench(args.bench) if args.bench else None
    models = []
    for workers in args.workers:
        measured = bench.numbers(workers, bench.document["medians"]) if bench else {}
        models.append(Model(**measured | given | {"workers": workers}))
    _check(parser, models)
    return args, models


def _check(parser: argparse.ArgumentParser, models: Sequence[Model]) -> None:
    base = models[0]
    for field in fields(Model):
        value = getattr(base, field.name)
        if not isinstance(value, str) and (value < 0 or not (value or field.name in MAY_BE_ZERO)):
            parser.error(f"{flag(field.name)} must be positive")
    if base.presum and not (base.mode == "grad" and base.is_remote):
        parser.error("--presum needs --mode grad and --engine ray: only gradients can be summed")
    for model in models:
        if model.mode == "traj" and model.batch_records > model.workers * model.slots:
            parser.error("--batch-records: more than all workers' credits; nothing would move")
        if model.presum and model.updaters > -(-model.workers // model.workers_per_host):
            parser.error("--updaters: more than hosts that send pre-summed gradients")
        if model.mode == "grad" and model.updaters > model.workers * model.slots:
            parser.error("--updaters: more than all workers' credits; nothing would move")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, or JSON."""
    args, models = _models(_parser(), argv)
    stages = ("workers", "network", "bridge", "updater")
    if not args.json:
        print(
            "| workers | env steps/s | lag p95 | acting | network | bridge | updater | saturates |"
        )
        print("|---|---|---|---|---|---|---|---|")
    for model in models:
        found = predict(model, args.seconds, args.seed)
        if args.json:
            print(json.dumps(found))
            continue
        shares = " | ".join(f"{found['utilization'][stage]:.0%}" for stage in stages)
        lag = "–" if found["lag_p95"] is None else found["lag_p95"]
        row = f"{model.workers:,} | {found['env_steps_per_s']:,.0f} | {lag} | {shares}"
        print(f"| {row} | {found['saturates']} |", flush=True)


if __name__ == "__main__":
    main()
