"""The worker's half of mode traj: newest parameters, a rollout, a record."""

from __future__ import annotations

from aa2c.modes.common import RolloutProducer
from aa2c.modes.mode import WorkerSetup
from aa2c.policy.flat import FlatParameters
from aa2c.ports import WorkerPort


class TrajProducer(RolloutProducer):
    """Writes each rollout into a record's arrays, and nowhere else."""

    def __init__(self, setup: WorkerSetup) -> None:
        super().__init__(setup, in_records=True)
        self._params = FlatParameters(self._policy)

    def produce(self, port: WorkerPort) -> None:
        """Act for one rollout and send it. The slot comes first, so that what acts is new."""
        arrays = port.reserve()
        if arrays is None:
            return
        version = port.pull(self._params.numpy)
        if version == 0:
            return
        self._rollout.write_into(arrays)
        self._statistics.begin()
        self._act(port, self._policy)
        self._statistics.write(arrays)
        port.commit(version, {"env_steps": self._rollout.env_steps})
