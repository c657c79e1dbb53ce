"""The learning rate now: the configured one, halved by rollbacks, annealed over the budget."""

from __future__ import annotations

from aa2c.ports import UpdaterPort


class LearningRate:
    """Kept in the updater's counters, so that one that is started again knows of its rollbacks."""

    def __init__(self, port: UpdaterPort) -> None:
        self._port = port
        self._counters = port.counters

    @property
    def base(self) -> float:
        """Before annealing. A rate that the owner sets after a rollback counts as it is."""
        configured = self._port.config_now().learning_rate
        return configured / 2 ** self._halvings_of(configured)

    def now(self) -> float:
        """Annealed over the env steps that were learned from."""
        config = self._port.config_now()
        if not config.anneal_learning_rate:
            return self.base
        left = 1 - self._counters.count("env_steps") / config.total_env_steps
        return self.base * max(0.0, left)

    def halve(self) -> None:
        """After a rollback."""
        configured = self._port.config_now().learning_rate
        self._counters.set("halvings", self._halvings_of(configured) + 1)
        self._counters.set("halved_rate", configured)

    def _halvings_of(self, configured: float) -> float:
        """So often the rate was halved since it was configured so."""
        is_same = configured == self._counters.value("halved_rate")
        return self._counters.value("halvings") if is_same else 0.0
