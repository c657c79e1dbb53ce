"""What was measured, the ceiling that follows from it, and advice."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aa2c.config.config import Config, flag

STAGES = {"env": "environments", "act": "inference", "learn": "learning"}
WORTH_TELLING = 1.03  # of the ceiling; less is noise


@dataclass(frozen=True)
class Result:
    """Medians over the rounds.

    `rates`: env steps per second of the whole machine on one stage alone, with all cores busy;
    `other_rates`: inference and learning in the other precision, if the CPU has two; `whole`: the
    run; `act_by_batch`: inference by batch size; `mb_per_s`: the transport, and a memcpy of the same
    size, in 10**6 bytes. The ring's is without a copy in the consumer, and missing if records have no
    arrays.
    """

    config: Config
    cores: int
    precision: str
    precision_reason: str
    rounds: int
    seconds: float
    rates: Mapping[str, float]
    whole: float
    other_precision: str
    other_rates: Mapping[str, float]
    act_by_batch: Mapping[int, float]
    mb_per_s: Mapping[str, float]
    every_round: Mapping[str, list[float]]

    @property
    def ceiling(self) -> float:
        """Env steps per second if the stages took turns on all cores: 1 / (1/E + 1/I + 1/L)."""
        return ceiling(self.rates)

    @property
    def ratio(self) -> float:
        """The whole run's share of the ceiling; overlap of the stages may lift it above 1."""
        return self.whole / self.ceiling

    @property
    def _spread(self) -> str:
        """The range of the rounds' ratios, if there are several rounds."""
        rounds = zip(*(self.every_round.get(name, []) for name in (*STAGES, "whole")), strict=True)
        ratios = [whole * sum(1 / rate for rate in rates) for *rates, whole in rounds]
        return f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""

    @property
    def shares(self) -> dict[str, float]:
        """Each stage's share of an env step's cost."""
        return {stage: self.ceiling / rate for stage, rate in self.rates.items()}

    @property
    def binds(self) -> str:
        """The bottleneck: the stage that costs most."""
        return max(self.shares, key=lambda stage: self.shares[stage])

    @property
    def recommended(self) -> dict[str, Any]:
        """The options that depend on the machine, chosen for this one."""
        config, cores = self.config, self.cores
        is_fit = cores <= config.workers <= 2 * cores
        is_other_better = self._gain_of_precision >= WORTH_TELLING
        return {
            "workers": config.workers if is_fit else cores,
            "num_envs": max(self._best_batch, config.num_envs),
            "update_threads": cores
            if config.mode_facts.loss_in == "updater"
            else config.update_threads,
            "precision": self.other_precision if is_other_better else self.precision,
        }

    @property
    def settings(self) -> str:
        """The same as flags."""
        return " ".join(f"{flag(name)} {value}" for name, value in self.recommended.items())

    @property
    def _gain_of_precision(self) -> float:
        return ceiling({**self.rates, **self.other_rates}) / self.ceiling

    @property
    def _best_batch(self) -> int:
        """The smallest about as fast as the fastest; the configured one if it matters little."""
        best = max(self.act_by_batch.values())
        size = min(size for size, rate in self.act_by_batch.items() if rate > 0.95 * best)
        return size if self._gain_of_batch(size) >= WORTH_TELLING else self.config.num_envs

    def _gain_of_batch(self, size: int) -> float:
        return ceiling({**self.rates, "act": self.act_by_batch[size]}) / self.ceiling

    @property
    def advice(self) -> list[str]:
        """Options that would speed up a run here, most certain first."""
        config, best = self.config, self.recommended
        reasons = {
            "workers": "one worker per core"
            if config.workers < self.cores
            else "more workers than cores only take turns",
            "update_threads": "keeps all cores busy during an update"
            if config.update_threads < self.cores
            else "more threads than cores only take turns",
            "precision": f"{self._gain_of_precision - 1:.0%} faster overall, as measured",
        }
        now = {name: getattr(config, name) for name in best} | {"precision": self.precision}
        lines = [
            f"{flag(name)} {best[name]}: {why}"
            for name, why in reasons.items()
            if best[name] != now[name]
        ]
        if best["num_envs"] > config.num_envs:
            gain = self._gain_of_batch(best["num_envs"])
            lines.append(
                f"--num-envs {best['num_envs']}: inference on larger batches is faster, "
                f"{gain - 1:.0%} overall; this affects learning"
            )
        if config.uses("update_epochs") and self.binds == "learn" and config.update_epochs > 1:
            one_pass = self.shares["learn"] / config.update_epochs
            lines.append(
                f"--update-epochs {config.update_epochs - 1}: learning is the bottleneck, and each "
                f"pass over the data is {one_pass:.0%} of an env step's cost; this affects learning"
            )
        return lines or ["nothing: these options suit this machine"]

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
            "recommended": self.recommended,
        }

    def text(self) -> str:
        """Everything, for people."""
        config, rates = self.config, self.rates
        lines = [
            f"{config.mode}, {config.env_name}, network {config.network}; {self.cores} cores of "
            f"{cpu_name()}; {config.workers} workers x {config.num_envs} environments",
            f"{self.precision}: {self.precision_reason}",
            f"medians of {self.rounds} rounds; each stage alone, all cores busy",
            "",
            f"{'':14}{'env steps/s':>12}{'share of cost':>20}",
        ]
        for stage, words in STAGES.items():
            lines.append(f"{words:14}{rates[stage]:>12,.0f}{self.shares[stage]:>20.0%}")
        lines += [
            f"{'ceiling':14}{self.ceiling:>12,.0f}   1 / (1/E + 1/I + 1/L)",
            f"{'whole run':14}{self.whole:>12,.0f}   {self.ratio:.2f} of the ceiling{self._spread}",
            "",
            f"bottleneck: {STAGES[self.binds]}",
            "inference by batch size: "
            + ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in self.act_by_batch.items()),
        ]
        for way, size in (("ring", "record"), ("board", "parameters")):
            if way in self.mb_per_s:
                rate, plain = self.mb_per_s[way], self.mb_per_s[f"memcpy_{size}"]
                lines.append(
                    f"{way}: {rate:,.0f} MB/s, {rate / plain:.2f} of a memcpy of its {size}"
                )
        if self.other_rates:
            told = ", ".join(f"{STAGES[s]} {rate:,.0f}" for s, rate in self.other_rates.items())
            lines.append(f"in {self.other_precision}: {told}")
        lines += ["", "what would help:", *(f"  {line}" for line in self.advice)]
        return "\n".join([*lines, "", f"options for this machine: {self.settings}"])


def ceiling(rates: Mapping[str, float]) -> float:
    """1 / (1/E + 1/I + 1/L)."""
    return 1 / sum(1 / rate for rate in rates.values())


def cpu_name() -> str:
    """The CPU's name, from the kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
