"""TensorBoard and Weights & Biases: what each gets of a run, with CleanRL's tags over env steps.

Each is used by one thread of the orchestrator, and may block there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from aa2c.config.config import Config

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
GIF_S, GIF_FPS, GIF_WIDTH = 30, 15, 240  # at most, of what TensorBoard shows of a video


class Tracker(Protocol):
    """A sink for numbers and videos."""

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None: ...

    def log_video(self, tag: str, path: Path, env_steps: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's tb/. What a resume undid is hidden from there on."""

    def __init__(self, run_dir: Path, config: Config, env_steps_before: int) -> None:
        from tensorboardX import SummaryWriter

        # Files of one second have one name but for a suffix.
        resumed = (
            {"purge_step": env_steps_before + 1, "filename_suffix": f".{env_steps_before}"}
            if env_steps_before
            else {}
        )
        self._dir = run_dir / "tb"
        self._session: list[Any] = []
        self._writer = SummaryWriter(str(self._dir), write_to_disk=True, **resumed)
        hyperparameters = _hyperparameters(config)
        rows = "".join(f"|{name}|{value}|\n" for name, value in hyperparameters.items())
        self._writer.add_text("hyperparameters", f"|param|value|\n|-|-|\n{rows}")
        self._add_session(hyperparameters)

    def _add_session(self, hyperparameters: Mapping[str, Any]) -> None:
        """For HPARAMS: without a list of hyperparameters, TensorBoard finds out which differ."""
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo

        session = SessionStartInfo(start_time_secs=time.time())
        for name, value in hyperparameters.items():
            if isinstance(value, bool):
                session.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                session.hparams[name].number_value = value
            else:
                listed = map(str, value) if isinstance(value, list) else [str(value)]
                session.hparams[name].string_value = " ".join(listed)
        self._add_plugin_data(
            "_hparams_/session_start_info", HParamsPluginData(session_start_info=session)
        )

    def _add_plugin_data(self, tag: str, content: Any) -> None:
        """In a file that is read first, and that the next start replaces: the first of a tag stays."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboardX.record_writer import RecordWriter

        plugin = SummaryMetadata.PluginData(
            plugin_name="hparams", content=content.SerializeToString()
        )
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
        self._session.append(Event(wall_time=time.time(), summary=Summary(value=[value])))
        with contextlib.closing(RecordWriter(str(self._dir / "events.out.tfevents.0"))) as file:
            for event in self._session:
                file.write(event.SerializeToString())

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        for tag, number in numbers.items():
            self._writer.add_scalar(tag, number, env_steps)

    def log_video(self, tag: str, path: Path, env_steps: int) -> None:
        """As an animated image: TensorBoard has no videos."""
        from tensorboardX.proto.summary_pb2 import Summary

        gif, height, width = _as_gif(path)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._writer.file_writer.add_summary(summary, env_steps)

    def close(self) -> None:
        from tensorboardX.proto.api_pb2 import Status
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo

        end = SessionEndInfo(status=Status.Value("STATUS_SUCCESS"), end_time_secs=time.time())
        self._add_plugin_data("_hparams_/session_end_info", HParamsPluginData(session_end_info=end))
        self._writer.close()


def _as_gif(video: Path) -> tuple[bytes, int, int]:
    """The beginning of a video, small, at the same speed; its height and width."""
    from imageio_ffmpeg import get_ffmpeg_exe

    filters = f"fps={GIF_FPS},scale='min({GIF_WIDTH},iw)':-1"
    command = [get_ffmpeg_exe(), "-v", "error", "-t", str(GIF_S), "-i", str(video)]
    command += ["-vf", filters, "-f", "gif", "-"]
    gif = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    width, height = struct.unpack_from("<HH", gif, 6)
    return gif, height, width


class WeightsAndBiases:
    """A wandb run of the same name; without an account it is kept in the run's wandb/."""

    def __init__(self, run_dir: Path, config: Config, _: int) -> None:
        import wandb

        if not _has_wandb_account():
            os.environ.setdefault("WANDB_MODE", "offline")  # or it would ask at the terminal
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "aa2c"),
            name=run_dir.name,
            id=run_dir.name[-64:],
            resume="allow",
            dir=str(run_dir),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        # Not by `init`, which refuses values that a resume has changed.
        of_run: Any = self._run.config
        of_run.update(_hyperparameters(config), allow_val_change=True)
        self._run.define_metric("*", step_metric="global_step")

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        self._run.log({**numbers, "global_step": env_steps})

    def log_video(self, tag: str, path: Path, env_steps: int) -> None:
        import wandb

        self._run.log({tag: wandb.Video(str(path), format="mp4"), "global_step": env_steps})

    def close(self) -> None:
        self._run.finish()


KINDS: dict[str, Callable[[Path, Config, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def _hyperparameters(config: Config) -> dict[str, Any]:
    """The options that the run's mode uses."""
    values = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)
        if config.uses(item.name)
    }
    return {name: list(it) if isinstance(it, tuple) else it for name, it in values.items()}


def _has_wandb_account() -> bool:
    """Whether wandb could log in without asking at a terminal."""
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return bool(os.environ.get("WANDB_API_KEY")) or (
        netrc.is_file() and "api.wandb.ai" in netrc.read_text()
    )
