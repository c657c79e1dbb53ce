"""Specs as JSON and msgpack have them, in checkpoints and from worker to updater.

What is read is not trusted: whatever is no spec is a `ValueError`, `KeyError` or `TypeError`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aa2c.envs.actions import FLOATS, INTEGERS
from aa2c.envs.observations import Image, Numbers, ObsSpec, OneHot, Several, layout_of
from aa2c.envs.spec import ActionSpec, Continuous, Discrete, EnvSpec, Joint, MultiBinary, is_image


def plain_spec(spec: EnvSpec) -> dict[str, Any]:
    """For JSON and msgpack."""
    obs = spec.obs and plain_obs(spec.obs)
    return vars(spec) | {"actions": plain_actions(spec.actions), "obs": obs}


def read_spec(plain: Any) -> EnvSpec:
    """What `plain_spec` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    fields = dict(plain)
    if fields.keys() != EnvSpec.__dataclass_fields__.keys():
        raise ValueError("its fields are not a spec's")
    shape, dtype = _sizes(fields["obs_shape"]), str(np.dtype(fields["obs_dtype"]))
    scale, actions = float(fields["obs_scale"]), read_actions(fields["actions"])
    if not 0 <= scale < math.inf:
        raise ValueError(f"its observations have no scale: {scale}")
    rows = None if fields["obs"] is None else read_obs(fields["obs"])
    if rows is not None and (layout_of(rows).shape, layout_of(rows).dtype) != (shape, dtype):
        raise ValueError(f"its observations are no rows of {shape}")
    if fields["has_mask"] and not actions.num_mask:
        raise ValueError("its actions take no mask")
    return EnvSpec(
        shape,
        dtype,
        actions,
        is_stacked=bool(fields["is_stacked"]),
        obs_scale=scale,
        obs=rows,
        has_mask=bool(fields["has_mask"]),
        resets_at_once=bool(fields["resets_at_once"]),
    )


def plain_actions(spec: ActionSpec) -> dict[str, Any]:
    """For JSON, in which an infinite bound is null."""
    plain = {"kind": type(spec).__name__, **vars(spec)}
    if isinstance(spec, Joint):
        plain["parts"] = [plain_actions(part) for part in spec.parts]
    for bound in {"low", "high"} & plain.keys():
        plain[bound] = [x if math.isfinite(x) else None for x in plain[bound]]
    return plain


def read_actions(plain: Any) -> ActionSpec:
    """What `plain_actions` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    fields = dict(plain)
    match fields.pop("kind"):
        case "Discrete":
            dtype = fields.get("dtype", "int64")  # which some older checkpoints do not name
            if dtype not in INTEGERS:
                raise ValueError(f"{dtype!r} is no integer of an action")
            return Discrete(_size(fields["n"]), _integer(fields["start"]), dtype)
        case "MultiBinary":
            return MultiBinary(_sizes(fields["shape"]))
        case "Continuous":
            shape = _sizes(fields["shape"])
            low, high = (_bounds(fields[name], sign) for name, sign in (("low", -1), ("high", 1)))
            if not len(low) == len(high) == math.prod(shape) or fields["dtype"] not in FLOATS:
                raise ValueError("its actions do not fit their bounds")
            return Continuous(shape, low, high, fields["dtype"], bool(fields["is_squashed"]))
        case "Joint":
            parts = tuple(map(read_actions, fields["parts"]))
            shape, names = _sizes(fields["shape"]), _names(fields["names"])
            if not parts or (shape and math.prod(shape) != len(parts)):
                raise ValueError("its actions have no parts")
            if names and len(names) != len(parts):
                raise ValueError("its actions do not fit their names")
            return Joint(parts, shape, names)
    raise ValueError(f"its actions are of no kind that there is: {plain!r}")


def plain_obs(spec: ObsSpec) -> dict[str, Any]:
    """For JSON."""
    plain = {"kind": type(spec).__name__, **vars(spec)}
    if isinstance(spec, Several):
        plain["parts"] = [plain_obs(part) for part in spec.parts]
    return plain


def read_obs(plain: Any) -> ObsSpec:
    """What `plain_obs` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    fields = dict(plain)
    match fields.pop("kind"):
        case "Numbers" | "Image" as kind:
            scale = float(fields["scale"])
            if not 0 < scale < math.inf:
                raise ValueError(f"{scale} is no scale")
            shape = tuple(map(_count, fields["shape"]))
            if kind == "Image" and not is_image(shape, "uint8"):
                raise ValueError(f"{shape} is no image")
            return Image(shape, scale) if kind == "Image" else Numbers(shape, scale)
        case "OneHot":
            sizes, starts = _sizes(fields["sizes"]), tuple(map(_integer, fields["starts"]))
            shape = _sizes(fields["shape"])
            if not len(sizes) == len(starts) == math.prod(shape):
                raise ValueError("its observations do not fit their sizes")
            return OneHot(sizes, starts, shape)
        case "Several":
            parts, names = tuple(map(read_obs, fields["parts"])), _names(fields["names"])
            if not parts or (names and len(names) != len(parts)):
                raise ValueError("its observations do not fit their names")
            return Several(parts, names)
    raise ValueError(f"its observations are of no kind that there is: {plain!r}")


def _integer(value: Any) -> int:
    """An integer of a JSON document. Raises `ValueError`."""
    if type(value) is not int:
        raise ValueError(f"{value!r} is no integer")
    return value


def _size(value: Any) -> int:
    return _count(value, least=1)


def _count(value: Any, least: int = 0) -> int:
    if _integer(value) < least:
        raise ValueError(f"{value} is no size")
    return int(value)


def _names(values: Any) -> tuple[str | int, ...]:
    """The names of a Dict's parts, as JSON keeps them in a list."""
    return tuple(name if isinstance(name, str) else _integer(name) for name in values)


def _sizes(values: Any) -> tuple[int, ...]:
    """Sizes of a JSON document, 1 or more each. Raises `ValueError`."""
    return tuple(map(_size, values))


def _bounds(values: Any, sign: int) -> tuple[float, ...]:
    return tuple(sign * math.inf if x is None else float(x) for x in values)
