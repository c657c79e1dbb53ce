"""What was measured, the ceiling that follows from it, and what would help."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aa2c.config import Config

STAGES = {"env": "environments", "act": "inference", "learn": "learning"}
WORTH_TELLING = 1.03  # of the ceiling; less is noise


@dataclass(frozen=True)
class Result:
    """Medians over the rounds.

    `rates`: env steps a second of the whole machine doing one stage alone, all cores busy;
    `whole`: of the run; `act_by_batch`: of inference on so many observations at once;
    `mb_per_s`: of the transport and of a memcpy of the same size, in 10**6 bytes.
    """

    config: Config
    cores: int
    precision: str
    precision_reason: str
    rounds: int
    seconds: float
    rates: Mapping[str, float]
    whole: float
    act_by_batch: Mapping[int, float]
    mb_per_s: Mapping[str, float]
    every_round: Mapping[str, list[float]]

    @property
    def ceiling(self) -> float:
        """Env steps a second if the stages took turns on all cores: 1 / (1/E + 1/I + 1/L)."""
        return ceiling(self.rates)

    @property
    def ratio(self) -> float:
        """Of the whole run to the ceiling; overlap of the stages may bring it above 1."""
        return self.whole / self.ceiling

    @property
    def shares(self) -> dict[str, float]:
        """Which part of an env step's cost each stage is."""
        return {stage: self.ceiling / rate for stage, rate in self.rates.items()}

    @property
    def binds(self) -> str:
        """The stage that costs most."""
        return max(self.shares, key=lambda stage: self.shares[stage])

    @property
    def advice(self) -> list[str]:
        """Options that would make a run faster here, most certain first."""
        config = self.config
        lines = []
        if config.workers < self.cores:
            lines.append(f"--workers {self.cores}: a worker for each core")
        elif config.workers > 2 * self.cores:
            lines.append(f"--workers {self.cores}: more than cores only take turns")
        if config.mode == "traj" and config.update_threads < self.cores:
            lines.append(
                f"--update-threads {self.cores}: so that no core idles while an update is made"
            )
        lines += self._advice_on_batch()
        if config.precision == "float32":
            lines.append("--precision auto: bfloat16 where the CPU has it")
        if config.mode == "traj" and self.binds == "learn" and config.update_epochs > 1:
            one_pass = self.shares["learn"] / config.update_epochs
            lines.append(
                f"--update-epochs {config.update_epochs - 1}: learning binds, and each pass over "
                f"the data is {one_pass:.0%} of an env step's cost; it "
                "changes what is learned"
            )
        return lines or ["nothing: these options suit this machine"]

    def _advice_on_batch(self) -> list[str]:
        best = max(self.act_by_batch.values())
        size = min(size for size, rate in self.act_by_batch.items() if rate > 0.95 * best)
        gain = ceiling({**self.rates, "act": self.act_by_batch[size]}) / self.ceiling
        if size <= self.config.num_envs or gain < WORTH_TELLING:
            return []
        return [
            f"--num-envs {size}: larger batches act faster, {gain - 1:.0%} in all; "
            "it changes what is learned"
        ]

    def document(self) -> dict[str, Any]:
        """Everything, for --json."""
        names = (
            "mode", "env", "network", "workers", "num_envs", "num_steps", "update_epochs",
            "minibatches", "update_threads",
        )  # fmt: skip
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {
            "config": {name: getattr(self.config, name) for name in names},
            "cpu": cpu_name(),
            "ceiling": self.ceiling,
            "ratio": self.ratio,
            "shares": self.shares,
            "binds": self.binds,
            "advice": self.advice,
        }

    def text(self) -> str:
        """Everything, for people."""
        config, rates = self.config, self.rates
        lines = [
            f"{config.mode}, {config.env}, network {config.network}; {self.cores} cores of "
            f"{cpu_name()}; {config.workers} workers x {config.num_envs} environments",
            f"{self.precision}: {self.precision_reason}",
            f"medians of {self.rounds} rounds; each stage alone, all cores busy",
            "",
            f"{'':14}{'env steps/s':>12}{'share of the cost':>20}",
        ]
        for stage, words in STAGES.items():
            lines.append(f"{words:14}{rates[stage]:>12,.0f}{self.shares[stage]:>20.0%}")
        lines += [
            f"{'ceiling':14}{self.ceiling:>12,.0f}   1 / (1/E + 1/I + 1/L)",
            f"{'whole run':14}{self.whole:>12,.0f}   {self.ratio:.2f} of the ceiling",
            "",
            f"{STAGES[self.binds]} bind" + ("s" if self.binds != "env" else ""),
            "inference by observations at once: "
            + ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in self.act_by_batch.items()),
        ]
        for way, size in (("ring", "record"), ("board", "parameters")):
            rate, plain = self.mb_per_s[way], self.mb_per_s[f"memcpy_{size}"]
            lines.append(f"{way}: {rate:,.0f} MB/s, {rate / plain:.2f} of a memcpy of its {size}")
        return "\n".join([*lines, "", "what would help:", *(f"  {line}" for line in self.advice)])


def ceiling(rates: Mapping[str, float]) -> float:
    """1 / (1/E + 1/I + 1/L)."""
    return 1 / sum(1 / rate for rate in rates.values())


def cpu_name() -> str:
    """As the kernel tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
