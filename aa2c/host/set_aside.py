"""Records with numbers that are not finite, kept on disk for inspection.

Few of them, because a run that goes wrong would otherwise fill the disk: they are counted all the same.
`numpy.load` reads them, without pickle; `told` in each is JSON: the record's counts and losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aa2c.strict_json import strict_json

MOST_FILES = 10


class SetAside:
    """The run's set_aside/, for one process; without a directory nothing is kept."""

    def __init__(self, run_dir: Path | None, title: str) -> None:
        self._directory = run_dir and run_dir / "set_aside"
        self._title = title

    def keep(self, arrays: Mapping[str, Any], told: Mapping[str, float]) -> None:
        """Write one file, unless there are enough or the disk is full."""
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(exist_ok=True)
            count = len(list(self._directory.iterdir()))
            if count >= MOST_FILES:
                return
            words = strict_json(dict(told))
            with (self._directory / f"{count:02d}-{self._title}.npz").open("xb") as file:
                np.savez_compressed(file, allow_pickle=False, told=np.array(words), **arrays)
