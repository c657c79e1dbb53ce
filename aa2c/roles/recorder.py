"""The evaluator's camera: episodes as videos, when the run's owner asks, and of each evaluation.

Behind everyone else on the CPU, as the evaluator is, and bounded: in length, in the time that it
may take, and in size by the encoder's bit rate. Also in the middle of an evaluation, which may be long:
it has a policy and a game of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aa2c.config.config import Config
from aa2c.envs.spec import EnvSpec
from aa2c.errors import Aa2cError
from aa2c.learn.play import evaluation_seed
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from aa2c.policy.policy import Policy
from aa2c.ports import EvaluatorPort, Report

if TYPE_CHECKING:
    from aa2c.learn.video import Video

VIDEO = "video.mp4"  # in the run's directory: the newest replaces the one before
VIDEOS = "videos"  # in the run's directory: those of evaluations
MOST_S = 60.0  # of video
RECORD_S = 120.0  # that it may take, on a busy machine


class _Unwanted(Exception):
    """The run ends: nobody waits for the video any more."""


class Recorder:
    """Records what is asked for by `videos_wanted`, each request once, even if that kills it.

    And, with --eval-video, the first greedy game of each evaluation.
    """

    def __init__(self, config: Config, spec: EnvSpec, port: EvaluatorPort, run_dir: Path) -> None:
        self._config = config
        self._spec = spec
        self._port = port
        self._path = run_dir / VIDEO
        self._videos = run_dir / VIDEOS
        self._can_film = True

    def record_if_wanted(self) -> None:
        """Record an episode, and report it or why there is none."""
        wanted, row = self._port.run.count("videos_wanted"), self._port.counters
        if row.count("videos_taken") >= wanted:
            return
        row.set("recorder_pid", os.getpid())
        row.set("videos_taken", wanted)
        try:
            told = self._record()
        except _Unwanted:
            told = {"error": "the run ended before it was recorded."}
        except (Aa2cError, ImportError) as error:
            told = {"error": str(error).removeprefix("--video").removeprefix(":").lstrip()}
        self._port.report(Report.VIDEO, wanted=wanted, **told)

    def _record(self) -> dict[str, float | str]:
        with torch.inference_mode(False):  # also within an evaluation
            policy = make_policy(self._config, self._spec)
        version = self._port.pull(FlatParameters(policy).numpy)
        env_steps = self._port.updater.count("env_steps")
        video = self._film(policy, self._path, env_steps, self._is_wanted)
        return {
            "policy_version": version,
            "env_steps": env_steps,
            "episode_return": video.episode.episode_return,
            "length": video.episode.length,
            "is_cut": video.episode.is_capped,
            "duration_s": round(video.duration_s, 2),
            "bytes": self._path.stat().st_size,
            "path": str(self._path),
        }

    def record_game(
        self, policy: Policy, env_steps: int, keep_going: Callable[[], bool]
    ) -> dict[str, str]:
        """Play an evaluation's first game once more: the video's path, or why there are none."""
        if not self._can_film:
            return {}
        path = self._videos / f"step-{env_steps:012}.mp4"
        try:
            self._film(policy, path, env_steps, keep_going)
        except _Unwanted:
            return {}
        except (Aa2cError, ImportError) as error:
            self._can_film = False
            return {"no_video": str(error).replace("--video", "--eval-video")}
        return {"video": str(path)}

    def _film(
        self, policy: Policy, path: Path, env_steps: int, is_wanted: Callable[[], bool]
    ) -> Video:
        """Play an episode into a file. Raises `_Unwanted` once it is not wanted any more."""
        from aa2c.learn.video import record  # its encoder is for few runs

        until = time.monotonic() + RECORD_S

        def keep_going() -> bool:
            if not is_wanted():
                raise _Unwanted
            return time.monotonic() < until

        return record(
            self._config,
            policy,
            path,
            greedy=True,
            seed=evaluation_seed(self._config, env_steps),
            max_steps=self._config.eval_max_steps,
            most_s=MOST_S,
            keep_going=keep_going,
        )

    def _is_wanted(self) -> bool:
        return self._port.beat() and self._port.last_checkpoint is None
