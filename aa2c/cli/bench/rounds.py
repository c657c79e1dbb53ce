"""Measure everything in interleaved rounds, so that a busy moment of the machine affects all alike."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Callable

from aa2c.cli.bench import transport
from aa2c.cli.bench.result import STAGES, Result
from aa2c.cli.bench.stages import AllCores
from aa2c.cli.bench.whole import whole_rate
from aa2c.config.config import Config
from aa2c.envs.vector import env_spec
from aa2c.policy.network import make_policy

BATCH_SIZES = (8, 16, 32, 64, 128)  # of inference, for the advice
WHOLE_LONGER = 4  # times as long as a stage, because a run's pace is uneven
TRANSPORT_S = 0.5


def run_bench(config: Config, *, rounds: int, seconds: float, say: Callable[[str], None]) -> Result:
    """Measure each stage for so many seconds per round. Raises `Aa2cError` if a run fails."""
    make_policy(config, env_spec(config))  # raises here what would break every process
    rates: dict[str, list[float]] = defaultdict(list)
    with AllCores(config) as cores:
        record_bytes, params_bytes = cores.sizes()
        precision, other = cores.precisions()
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            for stage in STAGES:
                rates[stage].append(cores.rate(stage, seconds))
            for stage in ("act", "learn") if other else ():
                rates[f"other_{stage}"].append(cores.rate(stage, seconds / 2, precision=other))
            for size in BATCH_SIZES:
                rates[f"act_{size}"].append(cores.rate("act", seconds / 4, size))
            for name, rate in _transport(record_bytes, params_bytes, config.ring_slots).items():
                rates[name].append(rate)
            rates["whole"].append(asyncio.run(whole_rate(config, WHOLE_LONGER * seconds)))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return Result(
        config=config,
        cores=cores.count,
        precision=precision.name,
        precision_reason=precision.reason,
        other_precision=other,
        other_rates={stage: medians[f"other_{stage}"] for stage in ("act", "learn") if other},
        rounds=rounds,
        seconds=seconds,
        rates={stage: medians[stage] for stage in STAGES},
        whole=medians["whole"],
        act_by_batch={size: medians[f"act_{size}"] for size in BATCH_SIZES},
        mb_per_s={name: medians[name] for name in _TRANSPORT if name in medians},
        every_round=dict(rates),
    )


_TRANSPORT = ("memcpy_record", "ring", "memcpy_parameters", "board")


def _transport(record_bytes: int, params_bytes: int, slots: int) -> dict[str, float]:
    """MB/s by name; the ring only if its records have arrays (mode model's do not)."""
    rates = {
        "memcpy_parameters": transport.memcpy_rate(params_bytes, TRANSPORT_S),
        "board": transport.board_rate(params_bytes, TRANSPORT_S),
    }
    if record_bytes:
        rates["memcpy_record"] = transport.memcpy_rate(record_bytes, TRANSPORT_S)
        rates["ring"] = transport.ring_rate(record_bytes, TRANSPORT_S, slots=slots, copy_out=False)
    return rates
