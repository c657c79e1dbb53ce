from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import ClassVar

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs import game as games
from aa2c.envs.game import make_game
from aa2c.envs.vector import env_spec
from aa2c.errors import ConfigError, StartError
from aa2c.learn.play import play
from aa2c.learn.video import enlarge, record
from aa2c.policy.network import make_policy
from tests.checkpoints.spaces import ACTIONS, OBSERVATIONS, Task

CARTPOLE = Config(env="CartPole-v1")


def network_for(config: Config):
    torch.manual_seed(0)
    return make_policy(config, env_spec(config))


def recorded(path: Path, config: Config = CARTPOLE, *, greedy=True, seed=0, max_steps=50):
    policy = network_for(config)
    return record(config, policy, path, greedy=greedy, seed=seed, max_steps=max_steps).episode


def read(path: Path):
    """Codec, pixel format, size and frames per second; and the pictures [T, H, W, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    result = subprocess.run([*command, "-"], capture_output=True, check=True)
    says = r"Video: (\w+) .*?(yuv\w+).*? (\d+x\d+).*? ([\d.]+) fps"
    codec, pixels, size, fps = re.search(says, result.stderr.decode()).groups()
    width, height = (int(side) for side in size.split("x"))
    pictures = np.frombuffer(result.stdout, np.uint8).reshape(-1, height, width, 3)
    return (codec, pixels, size, float(fps)), pictures


@pytest.mark.parametrize("greedy", [True, False])
def test_the_video_of_cartpole_shows_the_first_test_episode_of_the_seed(tmp_path, greedy):
    path = tmp_path / "cart.mp4"
    episode = recorded(path, greedy=greedy, seed=5)
    network = network_for(CARTPOLE)
    assert [episode] == play(CARTPOLE, network, episodes=1, greedy=greedy, seed=5, max_steps=50)
    says, pictures = read(path)
    assert len(pictures) == episode.length + 1
    assert says == ("h264", "yuv420p", "600x400", 50)
    assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["cart.mp4"]


@pytest.mark.long
def test_the_video_of_an_atari_game_shows_what_was_played_in_colour_and_in_real_time(tmp_path):
    config = Config(env="ALE/Breakout-v5", sticky_action_prob=0.25)
    path = tmp_path / "new" / "breakout.mp4"
    episode = recorded(path, config, greedy=False, seed=2, max_steps=60)
    assert (episode.length, episode.is_capped) == (60, True)
    network = network_for(config)
    assert [episode] == play(config, network, episodes=1, greedy=False, seed=2, max_steps=60)
    says, pictures = read(path)
    assert len(pictures) == 61
    assert says == ("h264", "yuv420p", "480x630", 15)
    game = make_game(config, with_pictures=True)
    game.start(2)
    shown, expected = pictures[0].astype(int), enlarge(game.picture())
    assert np.abs(shown - expected).mean() < 4
    assert (expected.max(axis=2) > expected.min(axis=2)).any(), "there are colours"
    game.close()


def test_a_video_replaces_the_one_of_its_name(tmp_path):
    path = tmp_path / "cart.mp4"
    path.write_bytes(b"old")
    episode = recorded(path)
    assert len(read(path)[1]) == episode.length + 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cart.avi", "must end in .mp4"),
        ("cart", "must end in .mp4"),
        ("folder.mp4", "is a directory"),
        ("file/cart.mp4", "cannot be written: "),
        ("n" * 300 + ".mp4", "cannot be written: File name too long"),
    ],
)
def test_a_path_that_cannot_be_written_is_a_config_error_before_anything_is_played(
    tmp_path, monkeypatch, name, words
):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.setattr(games.GymnasiumGame, "start", None)
    with pytest.raises(ConfigError) as caught:
        recorded(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"--video {tmp_path / name} ")
    assert words in message
    assert "\n" not in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.parametrize(
    "env", ["tests.envs.seeded_env:Seeded-v0", "tests.envs.custom_env:Counter-v0"]
)
def test_an_environment_that_cannot_be_drawn_leaves_no_file(tmp_path, env):
    with pytest.raises(ConfigError, match=r"--video: .* cannot be drawn"):
        recorded(tmp_path / "no.mp4", Config(env=env))
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_made_leaves_no_file(tmp_path):
    with pytest.raises(StartError, match="--env NoSuchGame-v0"):
        record(
            Config(env="NoSuchGame-v0"), network_for(CARTPOLE), tmp_path / "no.mp4",
            greedy=True, seed=0, max_steps=5,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_video_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "cart.mp4"
    path.write_bytes(b"old")
    steps = iter(range(5))
    step = games.GymnasiumGame.step

    def fail(self, action):
        if next(steps) == 3:
            raise RuntimeError("broken")
        return step(self, action)

    monkeypatch.setattr(games.GymnasiumGame, "step", fail)
    with pytest.raises(RuntimeError, match="broken"):
        recorded(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["cart.mp4"]


@pytest.mark.parametrize(
    ("shape", "larger"),
    [
        ((210, 160), (630, 480)),
        ((400, 600), (400, 600)),
        ((500, 500), (500, 500)),
        ((401, 601), (400, 600)),
        ((33, 31), (494, 464)),
        ((900, 1201), (900, 1200)),
    ],
)
def test_pictures_are_enlarged_without_blur_to_even_sides(shape, larger):
    picture = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    result = enlarge(picture)
    assert result.shape == (*larger, 3)
    factor = max(1, round(480 / shape[1]))
    rows, columns = (np.arange(side) // factor for side in larger)
    np.testing.assert_array_equal(result, picture[rows][:, columns])


class Drawn(Task):
    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, obs, actions, render_mode=None):
        super().__init__(obs, actions)
        self.render_mode = render_mode

    def render(self):
        return np.full((30, 40, 3), 10 * self.left, np.uint8)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(("seen", "done"), [(3, 1), (4, 2), (6, 4), (7, 5)])
def test_a_policy_with_memory_plays_and_is_recorded_whatever_the_spaces(
    tmp_path, seen, done, greedy
):
    env = functools.partial(Drawn, OBSERVATIONS[seen], ACTIONS[done])
    config = Config(env=env, memory="gru", memory_size=8, hidden_sizes=(8,))
    path = tmp_path / "game.mp4"
    episode = recorded(path, config, greedy=greedy)
    network = network_for(config)
    assert [episode] == play(config, network, episodes=1, greedy=greedy, seed=0, max_steps=50)
    says, pictures = read(path)
    assert (len(pictures), says[2:]) == (21, ("480x360", 30))
    assert pictures[0].mean() > pictures[-1].mean() + 100
