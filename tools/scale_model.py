"""What the simulation of scale is told: rates, sizes and CPU times, and what follows from them at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """What is simulated. Rates are env steps per second of one core, sizes are bytes."""

    workers: int = 1
    engine: str = "local"
    mode: str = "traj"
    env_rate: float = 100e3
    act_rate: float = 250e3
    learn_rate: float = 40e3
    steps: int = 512  # env steps of a record
    batch_records: int = 0  # of an update in mode traj; 0: as many as workers
    slots: int = 2
    optimizer_steps: int = 24  # of an update in mode traj
    apply_us: float = 300.0  # an optimizer step on one gradient, in mode grad
    cores: int = 2  # of the machine, or of each host and of the updater's machine
    update_threads: int = 1
    record_bytes: float = 16e3
    params_bytes: float = 40e3
    overhead_us: float = 0.0  # a worker's or the updater's, for each record
    workers_per_host: int = 16
    gbps: float = 25.0
    host_gbps: float = 10.0
    rtt_ms: float = 1.0
    # CPU time of a call to a host, and in addition of each record (here of 37 KB) or of new parameters in it:
    # of the engine's process and what Ray has beside it, and of the host's.
    call_engine_us: float = 1200.0
    call_host_us: float = 1300.0
    record_engine_us: float = 350.0
    record_host_us: float = 350.0
    params_engine_us: float = 300.0
    params_host_us: float = 0.0
    one_machine: bool = False  # hosts share the cores of the updater's machine
    copy_mbps: float = 4000.0
    compression: float = 1.0
    pack_mbps: float = 700.0
    unpack_mbps: float = 800.0
    presum: bool = False
    updaters: int = 1

    @property
    def is_remote(self) -> bool:
        return self.engine != "local"

    @property
    def sent_bytes(self) -> float:
        """Of a record on the network."""
        return self.record_bytes / self.compression

    @property
    def act_s(self) -> float:
        """A core's time for a record: environments, inference, and in mode grad the gradient."""
        per_step = 1 / self.env_rate + 1 / self.act_rate
        per_step += 1 / self.learn_rate if self.mode == "grad" else 0.0
        pack = self.record_bytes / (self.pack_mbps * 1e6) if self.compression > 1 else 0.0
        return self.steps * per_step + self.overhead_us * 1e-6 + pack

    @property
    def units_per_update(self) -> int:
        """What an update waits for: records, or pre-summed gradients of hosts."""
        if self.mode == "grad":
            return self.updaters
        return self.batch_records or self.workers

    @property
    def update_s(self) -> float:
        """Duration of an update on idle cores."""
        ring = self.params_bytes * 2 * (self.updaters - 1) / self.updaters
        reduce_s = ring * 8 / (self.gbps * 1e9) + (self.rtt_ms * 1e-3 if self.updaters > 1 else 0)
        overhead = self.units_per_update * self.overhead_us * 1e-6 / self.updaters
        if self.mode == "grad":
            return self.apply_us * 1e-6 + overhead + reduce_s
        rate = self.learn_rate * self.update_threads * self.updaters
        work = self.units_per_update * self.steps / rate
        return work + overhead + self.optimizer_steps * reduce_s

    @property
    def take_s(self) -> float:
        """A core's time of the bridge for a record, into shared memory."""
        unpack = 1 / self.unpack_mbps if self.compression > 1 else 0.0
        copy_s = self.record_bytes / 1e6 * (1 / self.copy_mbps + unpack)
        return self.record_engine_us * 1e-6 + copy_s

    def capacities(self) -> dict[str, float]:
        """Env steps per second that each stage could carry if the others were infinitely fast."""
        is_spread = self.is_remote and not self.one_machine
        share = min(self.workers, self.workers_per_host) if is_spread else self.workers
        speed = min(1.0, self.cores / share)
        on_host = min(self.workers, self.workers_per_host)
        merged = on_host * self.slots if self.presum else 1  # at most so many records in one
        update = merged * self.units_per_update * self.steps / self.update_s
        found = {"workers": self.workers * self.steps * speed / self.act_s, "updater": update}
        if self.is_remote:
            record_s = self.sent_bytes * 8 / (self.gbps * 1e9)
            found["network"] = merged * self.steps / record_s
            found["bridge"] = merged * self.steps / max(self.take_s, 1e-9)
        return found
