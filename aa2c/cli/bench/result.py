"""What limits a run on this machine: measured in rounds, the ceiling that follows, and advice."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aa2c.cli.bench.link import rates_of_link
from aa2c.cli.bench.stages import all_cores, describe
from aa2c.cli.bench.transport import transport_rates
from aa2c.cli.bench.whole import whole_rate
from aa2c.config.config import Config, flag

STAGES = {"env": "environments", "act": "inference", "learn": "learning"}
BATCH_SIZES = (8, 16, 32, 64, 128)  # of inference, for the advice
WHOLE_LONGER = 4  # times as long as a stage, because a run's pace is uneven
TRANSPORT_S = 0.5
WORTH_TELLING = 1.03  # of the ceiling; less is noise
CALLS = {"call": "empty", "record": "with a record", "parameters": "with parameters"}
BUSY_BELOW = 0.9  # of the cores
SHOWN = (
    "mode", "env", "network", "memory", "workers", "num_envs", "num_steps", "ring_slots",
    "batch_steps", "update_epochs", "minibatches", "update_threads", "engine", "workers_per_host",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What each round measured, by name, in env steps per second but for the transport.

    The stages, on the whole machine with all cores busy; `other_act` and `other_learn` in the other
    precision, if the CPU has two; `act_8` and so on: inference by batch size; `whole`: the run;
    `cores`: those that other programs leave; and the names of `transport_rates` and `link_rates`.
    """

    config: Config
    cores: int
    precision: str
    precision_reason: str
    other_precision: str
    every_round: Mapping[str, Sequence[float]]

    @functools.cached_property
    def medians(self) -> dict[str, float]:
        """Of each rate over the rounds."""
        return {name: statistics.median(rates) for name, rates in self.every_round.items()}

    @property
    def ceiling(self) -> float:
        """Env steps per second if the stages took turns on all cores: 1 / (1/E + 1/I + 1/L)."""
        return _ceiling(self.medians)

    @property
    def ratio(self) -> float:
        """The whole run's share of the ceiling; overlap of the stages may lift it above 1."""
        return self.medians["whole"] / self.ceiling

    @property
    def shares(self) -> dict[str, float]:
        """Each stage's share of an env step's cost."""
        return {stage: self.ceiling / self.medians[stage] for stage in STAGES}

    @property
    def binds(self) -> str:
        """The bottleneck: the stage that costs most."""
        return max(STAGES, key=self.shares.__getitem__)

    @property
    def recommended(self) -> dict[str, Any]:
        """The options that depend on the machine, chosen for this one."""
        return {name: best for name, _, best, _ in self._tuned}

    @property
    def advice(self) -> list[str]:
        """Options that would speed up a run here, most certain first."""
        config = self.config
        lines = [
            f"{flag(name)} {best}: {why}" for name, now, best, why in self._tuned if best != now
        ]
        if config.uses("update_epochs") and self.binds == "learn" and config.update_epochs > 1:
            one_pass = self.shares["learn"] / config.update_epochs
            lines.append(
                f"--update-epochs {config.update_epochs - 1}: learning is the bottleneck, and each "
                f"pass over the data is {one_pass:.0%} of an env step's cost; this affects learning"
            )
        return lines or ["nothing: these options suit this machine"]

    @property
    def _tuned(self) -> Iterator[tuple[str, Any, Any, str]]:
        """Options that depend on the machine: as they are and as they are best, and why."""
        config, cores = self.config, self.cores
        is_fit = cores <= config.workers <= 2 * cores
        why = "one worker per core; more than two only take turns"
        yield "workers", config.workers, config.workers if is_fit else cores, why

        threads = cores if config.mode_facts.loss_in == "updater" else config.update_threads
        why = "one thread per core is busy during an update; more only take turns"
        yield "update_threads", config.update_threads, threads, why

        stages = {"act": "other_act", "learn": "other_learn"} if self.other_precision else {}
        gain = self._gain(**{stage: self.medians[name] for stage, name in stages.items()})
        best = self.other_precision if gain >= WORTH_TELLING else self.precision
        yield "precision", self.precision, best, f"{gain - 1:.0%} faster overall, as measured"

        by_size = self._act_by_batch
        size = min(n for n, rate in by_size.items() if rate > 0.95 * max(by_size.values()))
        gain = self._gain(act=by_size[size])
        is_better = size > config.num_envs and gain >= WORTH_TELLING
        why = (
            f"inference on larger batches is faster, {gain - 1:.0%} overall; this affects learning"
        )
        yield "num_envs", config.num_envs, size if is_better else config.num_envs, why

    def _gain(self, **rates: float) -> float:
        return _ceiling({**self.medians, **rates}) / self.ceiling

    @property
    def _act_by_batch(self) -> dict[int, float]:
        return {size: self.medians[f"act_{size}"] for size in BATCH_SIZES}

    def document(self) -> dict[str, Any]:
        """Everything, for --json."""
        derived = ("medians", "ceiling", "ratio", "shares", "binds", "advice", "recommended")
        return {
            **vars(self),
            **{name: getattr(self, name) for name in derived},
            "config": {name: getattr(self.config, name) for name in SHOWN},
            "cpu": cpu_name(),
        }

    def text(self) -> str:
        """Everything, for people."""
        config, medians, whole = self.config, self.medians, self.every_round["whole"]
        spread = f"{min(whole):,.0f} to {max(whole):,.0f}"
        lines = [
            f"{config.mode}, {config.env_name}, network {config.network}; {self.cores} cores of "
            f"{cpu_name()}; {config.workers} workers x {config.num_envs} environments",
            f"{self.precision}: {self.precision_reason}",
            f"medians of {len(whole)} rounds; each stage alone, all cores busy",
            "",
            f"{'':14}{'env steps/s':>12}{'share of cost':>20}",
        ]
        for stage, words in STAGES.items():
            lines.append(f"{words:14}{medians[stage]:>12,.0f}{self.shares[stage]:>20.0%}")
        by_size = ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in self._act_by_batch.items())
        flags = " ".join(f"{flag(name)} {value}" for name, value in self.recommended.items())
        lines += [
            f"{'ceiling':14}{self.ceiling:>12,.0f}   1 / (1/E + 1/I + 1/L)",
            f"{'whole run':14}{medians['whole']:>12,.0f}   {self.ratio:.2f} of the ceiling; {spread}",
            "",
            f"bottleneck: {STAGES[self.binds]}",
            f"inference by batch size: {by_size}",
            *self._comparisons,
            "",
            "what would help:",
            *(f"  {line}" for line in self.advice),
            "",
            f"options for this machine: {flags}",
        ]
        return "\n".join(lines)

    @property
    def _comparisons(self) -> Iterator[str]:
        medians = self.medians
        for way, moved in (("ring", "record"), ("board", "parameters")):
            if way in medians:
                share = medians[way] / medians[f"memcpy_{moved}"]
                yield f"{way}: {medians[way]:,.0f} MB/s, {share:.2f} of a memcpy of its {moved}"
        if "link_calls" in medians:
            calls, records, parameters = (
                medians[f"link_{what}"] for what in ("calls", "records", "parameters")
            )
            yield (
                f"link to a host: {calls:,.0f} calls/s, {records:,.0f} MB/s of records, "
                f"{parameters:,.0f} MB/s of parameters"
            )
            yield "CPU time of a call to a host, here and there: " + ", ".join(
                f"{medians[f'link_{what}_here_us']:,.0f} and {medians[f'link_{what}_there_us']:,.0f} us "
                f"{carrying}"
                for what, carrying in CALLS.items()
            )
        if medians["cores"] < BUSY_BELOW * self.cores:
            yield f"other programs leave {medians['cores']:.1f} of {self.cores} cores: all this is too low"
        if self.other_precision:
            act, learn = medians["other_act"], medians["other_learn"]
            yield f"in {self.other_precision}: inference {act:,.0f}, learning {learn:,.0f}"


def _ceiling(rates: Mapping[str, float]) -> float:
    return 1 / sum(1 / rates[stage] for stage in STAGES)


def cpu_name() -> str:
    """The CPU's name, from the kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_bench(config: Config, *, rounds: int, seconds: float, say: Callable[[str], None]) -> Result:
    """Measure each stage for so many seconds per round, and a run. Raises `Aa2cError` if it fails.

    Rounds are interleaved, so that a busy moment of the machine affects all alike.
    """
    record_bytes, params_bytes, precision, other = describe(config)
    cores = len(os.sched_getaffinity(0))
    transport = functools.partial(transport_rates, record_bytes, params_bytes, config.ring_slots)
    rates: dict[str, list[float]] = defaultdict(list)
    with all_cores(config, cores) as rate:
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            for stage in STAGES:
                rates[stage].append(rate(stage, seconds))
            for stage in ("act", "learn") if other else ():
                rates[f"other_{stage}"].append(rate(stage, seconds / 2, precision=other))
            for size in BATCH_SIZES:
                rates[f"act_{size}"].append(rate("act", seconds / 4, size))
            rates["cores"].append(rate("cpu_ns", seconds / 4) / 1e9)
            for way, moved in transport(TRANSPORT_S).items():
                rates[way].append(moved)
            rates["whole"].append(asyncio.run(whole_rate(config, WHOLE_LONGER * seconds)))
    for way, rate_of_way in rates_of_link(config, record_bytes, params_bytes, seconds).items():
        rates[way].append(rate_of_way)
    return Result(config, cores, precision.name, precision.reason, other, dict(rates))
