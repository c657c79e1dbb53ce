"""What the orchestrator tells a child arrives as it was sent, however early."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import pytest

from aa2c.envs.find import no_tick
from aa2c.envs.observations import Numbers, OneHot, Several
from aa2c.envs.spec import Continuous, Discrete, EnvSpec, Joint, MultiBinary
from aa2c.envs.written import plain_spec, read_spec
from aa2c.host.commands import (
    Attach,
    AttachRing,
    Commands,
    Evaluate,
    LetGo,
    Spaces,
    Stop,
    Stopped,
    decode,
    encode,
)
from aa2c.shm.queue import Sender
from aa2c.shm.slot import ArraySpec, Malformed

ATTACH = Attach(
    board="aa2c-board",
    num_params=7,
    slot_bytes=128,
    arrays=(ArraySpec("obs", "<f4", (4, 2)), ArraySpec("reset", "|u1", (4,))),
    shared=(("params", 7), ("square_avg", 7)),
    ring="aa2c-ring-3-1",
)
RING = AttachRing(ring="aa2c-ring-3-1", worker=3, generation=1)


@pytest.fixture
def pipe():
    """The orchestrator's end, with a way to send commands, and the child's."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    sender = Sender(writing)
    commands = Commands(reading)
    yield lambda *sent: [sender.send(**encode(c)) for c in sent], commands, sender
    for end in (reading, writing):
        end.close()


@pytest.mark.parametrize("command", [RING, LetGo(worker=3)], ids=lambda c: type(c).__name__)
def test_a_command_about_rings_arrives_as_it_was_sent(pipe, command):
    send, commands, _ = pipe
    obeyed = []
    commands.obey_with(obeyed.append)
    send(command)
    assert commands.hear()
    assert obeyed == [command]


def test_what_to_attach_to_arrives_as_it_was_sent(pipe):
    send, commands, _ = pipe
    send(ATTACH)
    assert commands.wait_for_attach(no_tick) == ATTACH


def test_the_spaces_arrive_as_they_were_told_with_signs_of_life_until_then(pipe):
    send, commands, _ = pipe
    actions = Joint(
        (
            Discrete(3, start=1),
            MultiBinary((2, 2)),
            Continuous((2,), (-1.0, -math.inf), (1.0, 2.0)),
        ),
        names=("a", "b", "c"),
    )
    seen = Several((Numbers((2,), 3.0), OneHot((2, 3), (0, 1), (2,))), ("d", "e"))
    spec = EnvSpec((7,), "float32", actions, obs_scale=2.0, obs=seen)
    ticks = []

    def tick():
        ticks.append(0)
        if len(ticks) == 3:
            send(Spaces(spec=plain_spec(spec)))

    assert read_spec(commands.wait_for_spaces(tick).spec) == spec
    assert len(ticks) == 3


def test_the_last_checkpoint_is_known_once_it_is_named(pipe):
    send, commands, _ = pipe
    assert commands.last_checkpoint is None
    send(Evaluate(checkpoint="/runs/a/checkpoints/step-000000000007"))
    assert commands.hear(), "it is to evaluate, not to stop"
    assert commands.last_checkpoint == Path("/runs/a/checkpoints/step-000000000007")


def test_commands_that_come_before_the_port_are_obeyed_in_order_once_it_is_there(pipe):
    send, commands, _ = pipe
    later = AttachRing(ring="aa2c-ring-3-2", worker=3, generation=2)
    send(ATTACH, RING, LetGo(worker=3))
    commands.wait_for_attach(no_tick)
    obeyed = []
    commands.obey_with(obeyed.append)
    assert obeyed == [RING, LetGo(worker=3)]
    send(later)
    assert commands.hear()
    assert obeyed == [RING, LetGo(worker=3), later]


def test_a_child_that_is_told_to_stop_does_not_wait_for_its_memory(pipe):
    send, commands, _ = pipe
    send(Stop())
    with pytest.raises(Stopped):
        commands.wait_for_attach(no_tick)
    with pytest.raises(Stopped):
        commands.wait_for_spaces(no_tick)
    assert not commands.hear()


def test_a_child_stops_when_nobody_can_command_it_any_more(pipe):
    _, commands, sender = pipe
    assert commands.hear()
    sender.close()
    assert not commands.hear()


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "Dance"},
        {"kind": "LetGo"},
        {"kind": "Spaces"},
        {"kind": "LetGo", "worker": 1, "why": "tired"},
        encode(ATTACH) | {"arrays": [["obs", "<f4"]]},
        {name: value for name, value in encode(ATTACH).items() if name != "board"},
    ],
    ids=["unknown", "too little", "nothing", "too much", "half an array", "no board"],
)
def test_what_is_no_command_is_malformed(message):
    with pytest.raises(Malformed):
        decode(message)
