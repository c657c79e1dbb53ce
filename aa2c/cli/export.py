"""`export`: a trained policy as a file for programs without aa2c, compared with the policy first."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aa2c.checkpoints.trained import TrainedPolicy
from aa2c.envs.game import make_game
from aa2c.envs.spec import ActionSpec
from aa2c.errors import ConfigError, RunFailed
from aa2c.policy.exported import Exported, action_names, export, input_names

ROWS = 64  # observations that are compared
MOST_ERROR = 1e-3  # of values and actions, relative to 1 and to their size

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def export_policy(policy: TrainedPolicy, path: Path) -> str:
    """Write the policy to `path`, in the format of its suffix; says what it takes and gives.

    The file appears once it has given the policy's own actions and values for observations of the
    environment. Raises `ConfigError` for a path, a format or a network that cannot be, and
    `RunFailed` if it gives others.
    """
    if path.suffix not in _FORMATS:
        raise ConfigError(f"{path} must end in {' or '.join(_FORMATS)}.")
    layout = policy.network.layout
    if path.suffix == ".onnx" and layout is not None and layout.pixels:
        raise ConfigError("ONNX has no images of bytes beside other numbers: export to .pt2.")
    spec = policy.checkpoint.spec
    module = Exported(policy.network, spec.actions, is_masked=spec.has_mask).eval()
    inputs = _inputs(policy)
    names = input_names(module), output_names(module, spec.actions)
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        run = _FORMATS[path.suffix](module, inputs, names, partial)
        _compare(module, run, inputs)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    shapes = [
        f"{name} {tuple(each.shape[1:])}" for name, each in zip(names[0], inputs, strict=True)
    ]
    return f"{path}: from {', '.join(shapes)} to {', '.join(names[1])}, for any number of rows"


def output_names(module: Exported, actions: ActionSpec) -> list[str]:
    """Of what the file gives."""
    states = [name for name in input_names(module) if name.startswith("state")]
    return [*action_names(actions), "value", *(f"next_{name}" for name in states)]


def _inputs(policy: TrainedPolicy) -> list[Tensor]:
    """What the policy sees in `ROWS` steps of its environment: with the mask and memory it has then."""
    network, seen = policy.network, []
    nobody = torch.zeros(1, 1, dtype=torch.bool)
    with contextlib.closing(make_game(policy.checkpoint.config)) as game, torch.no_grad():
        obs, state = game.start(0), network.initial_state(1)
        for _ in range(ROWS):
            rows = torch.from_numpy(obs).unsqueeze(0)
            mask = None if game.mask is None else torch.from_numpy(game.mask).unsqueeze(0)
            seen.append([rows, *([] if mask is None else [mask]), *state])
            distribution, _, state = network.evaluate(rows, state, nobody, mask)
            action = distribution.sample(torch.default_generator)[0]
            obs, _, is_over = game.step(action.numpy())
            if is_over:
                obs, state = game.start(1), network.initial_state(1)
    return [torch.cat(column) for column in zip(*seen, strict=True)]


def _compare(module: Exported, run: Run, inputs: Sequence[Tensor]) -> None:
    """Raise `RunFailed` if the file's outputs differ from the policy's, by rows or all at once."""
    for rows in (slice(0, 1), slice(1, 4), slice(None)):
        some = [each[rows] for each in inputs]
        with torch.no_grad():
            expected = module(*some)
        for own, other in zip(expected, run(some), strict=True):
            difference = (own.double() - other.double()).abs() / (1 + own.double().abs())
            if not bool((difference <= MOST_ERROR).all()):
                raise RunFailed(
                    f"the exported policy differs from the policy by {float(difference.max()):.2g}."
                )


def _torch_export(
    module: Exported, inputs: Sequence[Tensor], names: tuple[list[str], list[str]], path: Path
) -> Run:
    torch.export.save(_traced(module, inputs), path)
    loaded = torch.export.load(path).module()
    return lambda some: loaded(*some)


def _onnx(
    module: Exported, inputs: Sequence[Tensor], names: tuple[list[str], list[str]], path: Path
) -> Run:
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not installed: pip install 'aa2c[onnx]'.")
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision
    traced = _traced(module, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            traced, input_names=names[0], output_names=names[1], verbose=False
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    return lambda some: [
        torch.from_numpy(np.asarray(result))
        for result in session.run(
            None, dict(zip(names[0], (each.numpy() for each in some), strict=True))
        )
    ]


def _traced(module: Exported, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    try:
        return export(module, inputs)
    except Exception as error:  # of a network that torch cannot trace
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"torch.export cannot trace the network: {first}") from error


_FORMATS = {".pt2": _torch_export, ".onnx": _onnx}
