"""aa2c compared with other libraries on this machine: env steps per second, all of them learned from.

    python tools/bench_peers.py [--suite atari|lstm|mujoco] [--game Pong] [--rounds 3] [--seconds 60]
                                [--only TEXT] [--venvs DIR] [--json]

Protocol. Learning on all cores of the CPU. Atari: one game, frame skip 4, 84x84 greyscale, 4 stacked frames, the
Nature CNN, in suite lstm with an LSTM of 512 units behind it. aa2c, Sample Factory and RLlib have 2 worker processes with 16 environments each (aa2c's traj 32:
Sample Factory is no faster with 32); Stable-Baselines3 has a process per environment. Env steps are agent
steps: frames are 4 times as many. MuJoCo: HalfCheetah-v5 with the settings that each peer publishes for it, and
aa2c with the same batch, passes, minibatches and layers; it needs the extra `mujoco`. Programs take turns; each is measured for --seconds after warming up, once
per round, and medians and their ratios are reported. The docstrings of the scripts in tools/peers/ are part of
the protocol.

The peers compute in float32; aa2c in the precision that `--precision auto` chooses, and in mode traj also
in float32. RLlib reports the share of its samples that it learned from, Sample Factory does not.

Each peer gets a virtual environment of its own, under --venvs, with the exact versions in tools/peers/.
If one cannot be installed or does not run, the reason is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ale_py

HERE = Path(__file__).parent
PEERS = HERE / "peers"
EXTRA_S = 240.0  # for start-up, warm-up and stopping


@dataclass(frozen=True)
class Program:
    """A script of tools/peers with its argument, run in a peer's virtual environment."""

    name: str
    peer: str  # "" is aa2c
    kind: str

    def command(self, venvs: Path, game: str, seconds: float) -> list[str]:
        """The command line."""
        python = venvs / self.peer / "bin" / "python" if self.peer else sys.executable
        script = PEERS / f"run_{self.peer or 'aa2c'}.py"
        return [str(python), str(script), self.kind, game, str(seconds)]


class Suite(NamedTuple):
    """Programs on one task, and which are compared, with the target of their ratio if there is one."""

    game: str
    programs: tuple[Program, ...]
    ratios: tuple[tuple[str, str, float | None], ...]


SUITES = {
    "atari": Suite(
        "Pong",
        (
            Program("aa2c traj, 1 pass", "", "traj"),
            Program("Sample Factory APPO, 1 pass", "sample_factory", "appo"),
            Program("aa2c traj, 1 pass, float32", "", "traj-float32"),
            Program("aa2c grad", "", "grad"),
            Program("SB3 A2C, 16 environments", "stable_baselines3", "a2c"),
            Program("aa2c model", "", "model"),
            Program("SB3 PPO, 8 environments, 4 passes", "stable_baselines3", "ppo"),
            Program("RLlib APPO, 1 pass", "rllib", "appo"),
            Program("aa2c grad, tuned recipe", "", "recipe-grad"),
            Program("aa2c model, tuned recipe", "", "recipe-model"),
        ),
        (
            ("aa2c traj, 1 pass", "Sample Factory APPO, 1 pass", 3.0),
            ("aa2c traj, 1 pass, float32", "Sample Factory APPO, 1 pass", 3.0),
            ("aa2c traj, 1 pass", "SB3 PPO, 8 environments, 4 passes", 6.0),
            ("aa2c traj, 1 pass", "RLlib APPO, 1 pass", 10.0),
            ("aa2c grad", "SB3 A2C, 16 environments", 2.5),
            ("aa2c model", "SB3 A2C, 16 environments", 2.5),
            ("aa2c grad, tuned recipe", "SB3 A2C, 16 environments", 2.5),
            ("aa2c model, tuned recipe", "SB3 A2C, 16 environments", 2.5),
        ),
    ),
    "lstm": Suite(
        "Pong",
        (
            Program("aa2c traj, LSTM", "", "traj-lstm"),
            Program("Sample Factory APPO, LSTM", "sample_factory", "appo-lstm"),
            Program("aa2c traj, LSTM, float32", "", "traj-lstm-float32"),
        ),
        (
            ("aa2c traj, LSTM", "Sample Factory APPO, LSTM", None),
            ("aa2c traj, LSTM, float32", "Sample Factory APPO, LSTM", None),
        ),
    ),
    "mujoco": Suite(
        "HalfCheetah-v5",
        (
            Program("aa2c traj, CleanRL's settings", "", "cheetah-cleanrl"),
            Program("CleanRL-like PPO, 10 passes", "cleanrl", "ppo"),
            Program("aa2c traj, SB3's settings", "", "cheetah-sb3"),
            Program("SB3 PPO, 20 passes", "stable_baselines3", "ppo-mujoco"),
        ),
        (
            ("aa2c traj, CleanRL's settings", "CleanRL-like PPO, 10 passes", None),
            ("aa2c traj, SB3's settings", "SB3 PPO, 20 passes", None),
        ),
    ),
}


def install(peer: str, venvs: Path) -> str:
    """Make a peer's virtual environment unless it exists; returns what went wrong, or ""."""
    home = venvs / peer
    done = home / "installed"
    wanted = (PEERS / f"{peer}.txt").read_text()
    if done.is_file() and done.read_text() == wanted:
        return ""
    steps = [
        [sys.executable, "-m", "venv", str(home)],
        # torch first: another package's version range would bring in the GPU build.
        [str(home / "bin" / "pip"), "install", "--quiet", "torch==2.13.0"],
        [str(home / "bin" / "pip"), "install", "--quiet", "-r", str(PEERS / f"{peer}.txt")],
    ]
    for step in steps:
        ran = subprocess.run(step, capture_output=True, text=True, check=False)
        if ran.returncode:
            said = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
            return f"cannot be installed: {said[-1] if said else ran.returncode}"
    done.write_text(wanted)
    return ""


def measure(program: Program, options: argparse.Namespace) -> tuple[float, float | None]:
    """Env steps per second, and the share learned from. Raises `RuntimeError` if it does not run."""
    roms = Path(ale_py.__file__).parent / "roms"
    process = subprocess.Popen(
        program.command(options.venvs, options.game, options.seconds),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"AA2C_ROMS": str(roms)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=options.seconds + EXTRA_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no result within {options.seconds + EXTRA_S:.0f} s") from None
    finally:
        # Some leave processes behind, which would slow down the next measurement.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    try:
        result = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        words = (err or out).strip().splitlines()[-3:]
        raise RuntimeError(" | ".join(words) or f"exit {process.returncode}") from None
    return result["env_steps"] / result["seconds"], result["trained_share"]


def run_rounds(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Each program's rates, one per round, and notes on some programs."""
    rates: dict[str, list[float]] = {}
    notes = {}
    programs = [it for it in SUITES[options.suite].programs if options.only in it.name]
    peers = sorted({program.peer for program in programs if program.peer})
    problems = {peer: install(peer, options.venvs) for peer in peers}
    for number in range(1, options.rounds + 1):
        for program in programs:
            problem = problems.get(program.peer)
            if problem:
                notes[program.name] = problem
                continue
            try:
                rate, share = measure(program, options)
            except RuntimeError as error:
                notes[program.name] = f"failed in round {number}: {error}"
                continue
            rates.setdefault(program.name, []).append(rate)
            if share is not None and share < 0.995:
                notes[program.name] = f"learns from {share:.0%} of its samples"
            print(f"round {number}: {program.name}: {rate:,.0f}", file=sys.stderr, flush=True)
    return rates, notes


def print_table(suite: Suite, rates: dict[str, list[float]], notes: dict[str, str]) -> None:
    """Print medians with their ranges, then ratios with their targets."""
    print(f"{'':36}{'env steps/s':>12}{'lowest':>9}{'highest':>9}")
    for program in suite.programs:
        values, note = rates.get(program.name), notes.get(program.name, "")
        if values:
            middle, low, high = statistics.median(values), min(values), max(values)
            print(f"{program.name:36}{middle:>12,.0f}{low:>9,.0f}{high:>9,.0f}  {note}")
        else:
            print(f"{program.name:36}{'not measured':>12}  {note}")
    print()
    for ours, theirs, aim in suite.ratios:
        if rates.get(ours) and rates.get(theirs):
            ratio = statistics.median(rates[ours]) / statistics.median(rates[theirs])
            print(f"{ours} / {theirs}: {ratio:.2f}" + (f" (target {aim:g})" if aim else ""))


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=SUITES, default="atari")
    parser.add_argument("--only", default="", help="measure only programs with this in their name")
    parser.add_argument("--game", help="as in ALE/Pong-v5, or an id of MuJoCo's environments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds per measurement")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=Path.home() / ".cache" / "aa2c-peers",
        help="directory of the peers' virtual environments",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    options.game = options.game or SUITES[options.suite].game
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no peer behind
    rates, notes = run_rounds(options)
    if options.json:
        print(
            json.dumps({"game": options.game, "env_steps_per_s": rates, "notes": notes}, indent=2)
        )
    else:
        print_table(SUITES[options.suite], rates, notes)


if __name__ == "__main__":
    main()
