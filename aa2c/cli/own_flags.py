"""The flags of each command, beside the options of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aa2c.cli.flags import Nothing, word
from aa2c.config.config import IMPORTING_OPTIONS, Config
from aa2c.config.option import option

_RUN = "a run's directory, or one of its checkpoints"


@dataclass(frozen=True)
class Serve:
    """The command."""

    resume: str = option("", "resume a run, or start from one of its checkpoints", basic=True)
    keep_serving: bool = option(False, "keep the dashboard up after the run has ended", basic=True)
    quiet: bool = option(False, "print only the dashboard's address and errors", basic=True)


@dataclass(frozen=True)
class Importing:
    """A checkpoint does not decide what is imported: who uses it repeats the names."""

    env: str = option("", "the run's --env, if it imports a module of your own")
    network: str = option("", "the run's --network, if it is a function of your own")
    wrapper: tuple[str, ...] = option(
        (), "each --wrapper of the run that is not of gymnasium.wrappers"
    )
    vector: str = option("", "the run's --vector")

    def code(self) -> dict[str, Any]:
        """As `load_policy` takes them."""
        return {name: getattr(self, name) for name in IMPORTING_OPTIONS}


@dataclass(frozen=True)
class Evaluation(Importing):
    """Options."""

    run: str = word("", _RUN)
    episodes: int = option(30, "whole games to play", minimum=1, maximum=2**20)
    greedy: bool = option(False, "take the most probable actions")
    sampled: bool = option(False, "sample actions; by default both ways are played")
    best: bool = option(False, "evaluate the best checkpoint instead of the newest")
    seed: int = option(0, "seed of the games and of sampled actions", minimum=0, maximum=2**31 - 1)
    max_steps: int = option(
        Config().eval_max_steps,
        "cut longer episodes off here, and count them as they are",
        unit="env steps",
        minimum=1,
        maximum=2**31,
    )
    video: str = option("", "record the first game to this .mp4 file")


@dataclass(frozen=True)
class Export(Importing):
    """Options."""

    run: str = word("", _RUN)
    file: str = word("", "file to write: .pt2 (torch.export) or .onnx")
    best: bool = option(False, "export the best checkpoint instead of the newest")


@dataclass(frozen=True)
class Report:
    """Options."""

    runs: tuple[str, ...] = word((), "the directory of a run, or several to compare them")
    out: str = option(
        "", "directory for the report; by default the run's report/, for several ./report"
    )


@dataclass(frozen=True)
class Bench:
    """The command."""

    rounds: int = option(
        3, "how often to measure everything; medians are reported",
        minimum=1, maximum=1000, basic=True,
    )  # fmt: skip
    seconds: float = option(
        3.0, "per stage and round; the whole run gets 4 times that",
        unit="s", minimum=0.1, maximum=1000, basic=True,
    )  # fmt: skip
    json: bool = option(False, "print JSON", basic=True)


@dataclass(frozen=True)
class Top:
    """Options."""

    run: str = word("", "a run's directory, or the address that serve printed")
    url: str = option("", f"the address; by default http://127.0.0.1:{Config().port}/")
    token: str = option("", "the run's token, if reading needs it; by default from AA2C_TOKEN")


@dataclass(frozen=True)
class Doctor:
    """Options."""

    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Runs:
    """Options."""

    dir: str = word(Config().runs_dir, "the directory in which the runs are")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Completion:
    """Options."""

    shell: str = word("", "bash, zsh or fish")


FLAGS: dict[str, type] = {
    "serve": Serve,
    "config": Nothing,
    "eval": Evaluation,
    "export": Export,
    "report": Report,
    "bench": Bench,
    "top": Top,
    "runs": Runs,
    "doctor": Doctor,
    "presets": Nothing,
    "completion": Completion,
}
TAKE_OPTIONS = ("serve", "config", "bench")  # those of a run
