"""`load_metrics`: the numbers of a run, for a program or a notebook."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from aa2c.errors import ConfigError
from aa2c.report.reading import drop_undone, find_resumes, parse_metrics, read_rows
from aa2c.run.episodes import POLICIES
from aa2c.run.quantities import QUANTITIES

COLUMNS = {quantity.name: quantity.row_keys for quantity in QUANTITIES if quantity.series} | {
    f"{policy}_{name}": ("returns", "test", policy, key)
    for policy in POLICIES
    for name, key in (("test_return_mean", "mean"), ("test_env_steps", "env_steps"))
}


def load_metrics(run: str | Path, *, as_frame: bool | None = None) -> Any:
    """A run's rows of metrics, one a second, by column: a pandas DataFrame, or a dict of arrays.

    A value that a row lacks is NaN, and what a resume undid is left out. Without `as_frame` it is a
    DataFrame where pandas is installed. Raises `ConfigError`.
    """
    path = Path(run) / "metrics.jsonl"
    try:
        rows, _ = read_rows(path, partial(parse_metrics, columns=COLUMNS), tuple(COLUMNS))
    except OSError as error:
        raise ConfigError(f"{run} is not a run: {path.name}: {error.strerror}.") from None
    rows = drop_undone(rows, *find_resumes(rows))
    if as_frame is False:
        return rows
    try:
        import pandas
    except ImportError:
        if as_frame:
            raise ConfigError("as_frame needs pandas: pip install 'aa2c[pandas]'.") from None
        return rows
    return pandas.DataFrame(rows)
