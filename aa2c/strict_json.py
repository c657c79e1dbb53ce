"""JSON as the standard has it: what is NaN or infinite in Python is null in every file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def strict_json(
    document: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """The document as JSON that any parser reads; `default` says what stands for other types."""
    try:
        return json.dumps(document, indent=indent, default=default, allow_nan=False)
    except ValueError:  # the rare case pays for a second pass
        return json.dumps(_finite(document), indent=indent, default=default, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
