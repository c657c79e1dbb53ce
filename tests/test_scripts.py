"""Programs as people write them: without a main guard, in a pool, in a notebook, with their own code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch

import aa2c
from aa2c import Config, ConfigError, Orchestrator, StartError, load_policy, train
from tests.conftest import until

# Everything of one's own: a class of environments, an id that only __main__ has registered, a network.
OWN = """\
import json
import os
import sys

import gymnasium as gym
import numpy as np
import torch

from aa2c import Config, train


class Even(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        return self.observe(), float(action), bool(self.np_random.random() < 0.1), False, {}

    def observe(self):
        return self.np_random.uniform(-1, 1, SIZE).astype(np.float32)


def trunk(shape):
    return torch.nn.Linear(shape[0], 4)


def steps(name, **options):
    config = Config(**dict(
        name=name, workers=1, num_envs=4, total_env_steps=1000, eval_interval_s=0, hidden_sizes=8,
        runs_dir=os.environ["RUNS"],
    ) | options)
    return train(config)["progress"]["env_steps"]


SIZE = 3
gym.register("Even-v0", entry_point=Even)
gym.register("Named-v0", entry_point="__main__:Even")
"""

TRIALS = """\
print(json.dumps([steps("class", env=Even), steps("id", env="Even-v0")]))
print(json.dumps([steps("code", env=lambda: gym.make("Named-v0"), network=trunk)]))
"""


def run(command, runs, **options):
    """Run a program to its end; what it printed, line by line."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | {"RUNS": str(runs)},
        text=True,
        capture_output=True,
        **options,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr  # a prompt goes on after one
    return done.stdout.splitlines()


def script(tmp_path, *parts):
    path = tmp_path / "script.py"
    path.write_text("".join(parts))
    return path


@pytest.mark.long
@pytest.mark.parametrize("way", ["file", "standard input", "-c", "prompt"])
def test_a_program_without_a_main_guard_trains_on_what_it_defines_itself(way, tmp_path):
    runs, program = tmp_path / "runs", OWN + TRIALS
    match way:
        case "file":
            printed = run([script(tmp_path, program)], runs)
        case "standard input":
            printed = run(["-"], runs, input=program)
        case "-c":
            printed = run(["-c", program], runs)
        case "prompt":
            lines = program.replace("\n\n    def", "\n    def")  # an empty line would end the class
            printed = run(["-i", "-q"], runs, input=lines)
    counts = [count for line in printed for count in json.loads(line)]
    assert len(counts) == 3
    assert min(counts) >= 1000
    assert {path.name for path in runs.iterdir()} == {"class", "id", "code"}
    said = json.dumps([(runs / name / "config.toml").read_text() for name in ("class", "code")])
    assert r"env = \"Even()\"" in said
    assert r"env = \"<lambda>()\"" in said
    assert r"network = \"trunk()\"" in said


@pytest.mark.long
def test_a_service_without_standard_descriptors_trains(tmp_path):
    program = script(tmp_path, OWN, 'steps("one", env=Even)')
    command = ["sh", "-c", 'exec "$0" "$1" <&- >&- 2>&-', sys.executable, program]
    subprocess.run(command, env=os.environ | {"RUNS": str(tmp_path)}, check=True)
    assert list((tmp_path / "one" / "checkpoints").glob("step-*"))


@pytest.mark.long
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_sweep_in_a_pool_trains_in_its_daemonic_processes(method, tmp_path):
    sweep = f"""
import multiprocessing

def trial(config):
    assert multiprocessing.current_process().daemon
    return train(config)["progress"]["env_steps"]

def in_the_pool(name):
    return steps(name, env=Even, network="__main__:trunk")

if __name__ == "__main__":
    of_all = dict(workers=1, num_envs=4, total_env_steps=1000, eval_interval_s=0)
    config = Config(**of_all, runs_dir=os.environ["RUNS"], env=Even)
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print(json.dumps([*pool.map(trial, [config]), *pool.map(in_the_pool, ["two"])]))
"""
    (line,) = run([script(tmp_path, OWN, sweep)], tmp_path / "runs")
    assert min(json.loads(line)) >= 1000


@pytest.mark.long
async def test_train_works_where_an_event_loop_is_running_and_says_what_is_wrong_as_elsewhere(
    small,
):
    assert train(small(total_env_steps=1000))["progress"]["env_steps"] >= 1000
    with pytest.raises(ConfigError, match="NoSuch"):
        train(small(env="NoSuch-v0"))
    with pytest.raises(ConfigError, match="Lost"):
        train(small(env="Lost()"))
    assert not [thread for thread in threading.enumerate() if thread.name == "aa2c"]


FOR_EVER = """
def train_for_ever(_=None):
    steps("one", env=Even, total_env_steps=10**9)
"""
INTERRUPTED = {
    "script": "train_for_ever()",
    "cell": """
import asyncio

async def kernel():
    train_for_ever()

asyncio.new_event_loop().run_until_complete(kernel())  # Ctrl-C is raised where it hits, as in a kernel
""",
    "pool": """
import multiprocessing

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(train_for_ever, [None])
""",
}


@pytest.mark.long
@pytest.mark.parametrize("place", INTERRUPTED)
def test_ctrl_c_ends_a_program_and_all_its_processes(place, tmp_path):
    """As a terminal sends it: to the whole process group of the program."""
    runs = tmp_path / "runs"
    program = script(tmp_path, OWN, FOR_EVER, INTERRUPTED[place])
    with subprocess.Popen(
        [sys.executable, program],
        env=os.environ | {"RUNS": str(runs)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        log = runs / "one" / "log.jsonl"
        deadline = time.monotonic() + 60
        while not (log.exists() and '"event": "running"' in log.read_text()):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in said
    if place != "pool":  # there the pool may end its process before that has saved
        assert list((runs / "one" / "checkpoints").glob("step-*"))


def refusal(config, **options):
    """What a run that cannot be started says at once; it leaves nothing behind."""

    async def start():
        async with Orchestrator(config, **options):
            pass

    with pytest.raises(ConfigError) as refused:
        asyncio.run(start())
    assert not list(Path(config.runs_dir).glob("*"))
    return str(refused.value)


def test_code_that_cannot_be_sent_is_refused_by_name(small, monkeypatch):
    lock = threading.Lock()
    said = refusal(small(env=lambda: lock))
    assert "--env test_code_that_cannot_be_sent_is_refused_by_name.<locals>.<lambda>() " in said
    assert "() cannot be sent to the processes of a run: TypeError: " in said
    said = refusal(small(network=lambda shape: lock))
    assert said.startswith("--network ")
    monkeypatch.setitem(
        gym.registry, "Locked-v0", gym.envs.registration.EnvSpec("Locked-v0", lambda: lock)
    )
    assert "--env Locked-v0 cannot be sent" in refusal(small(env="Locked-v0"))
    assert small(env=lambda: lock).env.endswith("<lambda>()")  # a configuration may hold it


def test_code_of_which_only_the_name_is_there_must_be_passed_again(small):
    assert "pass it again in Python, as env=..." in refusal(small(env="Even()"))
    assert "pass it again in Python, as network=..." in refusal(small(network="trunk()"))
    assert "this program has no such function" in refusal(small(network="__main__:nothing"))


@pytest.mark.parametrize("way", ["factory", "id"])
async def test_code_is_pickled_once_for_all_processes(small, way, monkeypatch):
    pickled = []

    class Simulator:
        def __reduce__(self):
            pickled.append(way)
            return str, ()

    simulator = Simulator()
    env = lambda: simulator  # noqa: E731
    if way == "id":
        registered = gym.envs.registration.EnvSpec("Counted-v0", env)
        monkeypatch.setitem(gym.registry, "Counted-v0", registered)
        env = "Counted-v0"
    async with Orchestrator(small(env=env)) as run:
        with pytest.raises(StartError):  # a string is no environment
            await run.wait()
    assert pickled == [way]


@pytest.mark.long
@pytest.mark.parametrize(
    ("option", "kind"), [("env", LookupError), ("network", LookupError), ("network", SystemExit)]
)
def test_code_that_raises_in_its_process_ends_the_run_in_one_sentence_and_leaves_nothing(
    small, option, kind
):
    def fails(*_):
        raise kind("as planned")

    with pytest.raises(StartError, match=f"{kind.__name__}: as planned"):
        train(small(**{option: fails}))
    assert not list(Path(small().runs_dir).glob("*"))


class Noisy(gym.Wrapper):
    """CartPole with one more observation, for which a large array must be sent."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))


def widened(shape):
    return torch.nn.Linear(*shape, 4)


@pytest.mark.long
async def test_a_run_with_code_is_resumed_and_its_policy_loaded_once_the_code_is_passed_again(
    small,
):
    options = small(env=Noisy, network=widened, total_env_steps=1000)
    async with Orchestrator(options) as run:
        status = await run.wait()
    assert status["run"]["env"] == "Noisy()"
    named = aa2c.load_config(file=run.dir / "config.toml", flags={"total_env_steps": 2000})
    with pytest.raises(ConfigError, match=r"--env Noisy\(\) .* pass it again in Python, as env="):
        async with Orchestrator(named, resume=run.dir):
            pass
    again = Config(**vars(named) | {"env": Noisy, "network": widened})
    async with Orchestrator(again, resume=run.dir) as resumed:
        assert (await resumed.wait())["progress"]["env_steps"] >= 2000
    with pytest.raises(ConfigError, match=r"--network widened\(\) .* as network="):
        load_policy(run.dir)
    policy = load_policy(run.dir, network=widened, env=Noisy)
    assert policy(np.zeros((2, 4), np.float32)).shape == (2,)
    assert policy.checkpoint.config.env.load() is Noisy


@pytest.mark.long
async def test_code_may_be_larger_than_a_pipe(small):
    large = np.arange(10**6)

    def make():
        assert large[-1] == 10**6 - 1
        return gym.make("CartPole-v1")

    async with Orchestrator(small(env=make, total_env_steps=500)) as run:
        await run.wait()


@pytest.mark.long
async def test_a_restarted_worker_has_the_code_with_which_the_run_began(small):
    works = [True]

    def make():
        assert works[0]
        return gym.make("CartPole-v1")

    config = small(env=make, total_env_steps=10**9, restart_backoff_s=0.01)
    async with Orchestrator(config) as run:
        await run.ready()
        works[0] = False
        os.kill(run.status()["workers"][0]["pid"], signal.SIGKILL)
        await until(lambda: run.status()["workers"][0]["generation"] == 1)
        await until(lambda: run.status()["workers"][0]["state"] == "running")
        await run.stop()
