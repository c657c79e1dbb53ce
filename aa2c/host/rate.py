"""Rates over the last seconds, of counters that are looked at once a second."""

from __future__ import annotations

from collections import deque

RATE_WINDOW_S = 10.0


class Rate:
    """Increase per second of a counter over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def sample(self, now: float, value: float) -> None:
        self._samples.append((now, value))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else 0.0
