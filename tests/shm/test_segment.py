"""Segments that leave nothing behind, and the wake-up beside them."""

import fcntl
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from aa2c.errors import Aa2cError, SharedMemoryTooSmall
from aa2c.shm.segment import SHM_DIR, Segment, name_prefix, remove_leftovers, require_space
from aa2c.shm.wakeup import Wakeup
from tests.conftest import not_checked

WAIT_S = 20.0


def run_python(code, *arguments):
    """Run code in a fresh interpreter with a resource tracker of its own; its standard error."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def start_owner():
    """Start a process, in a session of its own, that owns a segment; (process, segment name)."""
    code = (
        "import sys\n"
        "from aa2c.shm.segment import Segment, name_prefix\n"
        "segment = Segment.create(name_prefix('testowner') + '0', 4096)\n"
        "print(segment.name, flush=True)\n"
        "sys.stdin.read()\n"
        "segment.close(); segment.unlink()\n"
    )
    owners = []

    def start():
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code]
        owner = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        owners.append(owner)
        assert select.select([owner.stdout], [], [], WAIT_S)[0]
        return owner, owner.stdout.readline().strip()

    yield start
    for owner in owners:
        owner.communicate(timeout=WAIT_S)


def test_a_new_segment_is_zeroed_and_of_the_size_asked_for(make_segment):
    segment = make_segment(12_345)
    assert len(segment.buf) == 12_345
    assert not any(segment.buf)
    assert (SHM_DIR / segment.name).stat().st_mode & 0o077 == 0


def test_what_one_mapping_stores_the_other_loads(make_segment):
    segment = make_segment(64)
    other = Segment.attach(segment.name)
    segment.buf[5] = 9
    assert other.buf[5] == 9
    other.close()


def test_attaching_to_nothing_raises_file_not_found():
    with pytest.raises(FileNotFoundError):
        Segment.attach(f"{name_prefix('test')}missing")


# Both are more than the whole file system holds, so that the kernel refuses at once: never ask
# for a size that it would try to allocate.
@pytest.mark.parametrize("nbytes", [2**45, 2**50], ids=["32 TiB", "1 PiB"])
def test_a_segment_beyond_the_file_system_is_refused_with_size_and_remedy(nbytes):
    blocks = os.statvfs(SHM_DIR)
    if not 0 < blocks.f_blocks * blocks.f_frsize < 2**44:
        not_checked("a segment larger than /dev/shm", "/dev/shm has no bound of its own")
    name = f"{name_prefix('test')}toolarge"
    try:
        with pytest.raises(Aa2cError, match=str(nbytes // 2**20)) as caught:
            Segment.create(name, nbytes)
    finally:
        left = (SHM_DIR / name).exists()
        (SHM_DIR / name).unlink(missing_ok=True)
    assert not left
    assert isinstance(caught.value, SharedMemoryTooSmall)
    assert caught.value.exit_code == 3
    for remedy in ("/dev/shm", "--shm-size", "--ring-slots"):
        assert remedy in str(caught.value)


def test_a_refused_segment_leaves_nothing_on_standard_error():
    """The resource tracker complains there when it is told to forget what it was never told of."""
    code = (
        "import contextlib\n"
        "from aa2c.shm.segment import Segment, name_prefix\n"
        "with contextlib.suppress(Exception):\n"
        "    Segment.create(name_prefix('test') + 'toolarge', 2**50)\n"
    )
    assert run_python(code) == ""


def test_space_is_refused_before_anything_is_made():
    with pytest.raises(SharedMemoryTooSmall):
        require_space(2**60)
    require_space(1)


def test_closing_under_a_live_view_neither_raises_nor_warns(make_segment):
    segment = make_segment(4096)
    view = np.frombuffer(segment.buf, np.uint8)
    view[0] = 7
    segment.close()
    segment.close()
    gc.collect()
    assert view[0] == 7
    view[1] = 8
    del view
    gc.collect()
    with pytest.raises(ValueError, match="closed"):
        _ = segment.buf


def test_closing_gives_the_file_descriptor_back_even_under_a_live_view(make_segment):
    segment = make_segment(4096)
    before = len(os.listdir("/proc/self/fd"))
    views = []
    for _ in range(10):
        other = Segment.attach(segment.name)
        views.append(np.frombuffer(other.buf, np.uint8))
        other.close()
    del views
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unlinked_segment_stays_with_those_who_mapped_it(make_segment):
    segment = make_segment(64)
    other = Segment.attach(segment.name)
    segment.buf[0] = 3
    (SHM_DIR / segment.name).unlink()
    assert other.buf[0] == 3
    other.close()


def test_a_process_that_attached_leaves_the_segment_when_it_exits(make_segment):
    segment = make_segment(64)
    code = (
        "import sys\n"
        "from aa2c.shm.segment import Segment\n"
        "segment = Segment.attach(sys.argv[1])\n"
        "segment.buf[0] = 5\n"
    )
    assert run_python(code, segment.name) == ""
    assert (SHM_DIR / segment.name).exists()
    assert segment.buf[0] == 5


def test_create_close_unlink_leaves_nothing_on_standard_error():
    code = (
        "from aa2c.shm.segment import Segment, name_prefix\n"
        "segment = Segment.create(name_prefix('test') + '0', 64)\n"
        "segment.close(); segment.unlink()\n"
    )
    assert run_python(code) == ""


def test_leftovers_of_a_killed_process_are_removed_and_those_of_living_ones_stay(
    make_segment, start_owner
):
    mine = make_segment(64)
    killed, its_name = start_owner()
    living, other_name = start_owner()
    os.killpg(killed.pid, signal.SIGKILL)  # with its resource tracker, which would clean up
    killed.wait(WAIT_S)
    assert (SHM_DIR / its_name).exists()
    assert its_name in remove_leftovers()
    assert not (SHM_DIR / its_name).exists()
    assert living.poll() is None
    assert (SHM_DIR / other_name).exists()
    assert (SHM_DIR / mine.name).exists()


def test_leftovers_of_another_pid_namespace_are_removed_and_of_a_living_run_there_stay(
    make_segment,
):
    """Its lock decides, not a number that means nothing here."""
    user, _, pid, run = name_prefix("test").removeprefix("aa2c-").rstrip("-").split("-")
    left, kept = (f"aa2c-{user}-1-{pid}-{run}-{i}" for i in range(2))
    (SHM_DIR / left).touch()
    living = Segment.create(kept, 64)
    try:
        removed = remove_leftovers()
        assert left in removed
        assert kept not in removed
        assert (SHM_DIR / kept).exists()
        living.close()
        assert kept in remove_leftovers()
    finally:
        (SHM_DIR / left).unlink(missing_ok=True)
        living.unlink()


@pytest.mark.parametrize("is_attached", [True, False])
def test_a_segment_that_is_locked_by_who_shares_a_model_is_its_creators_still(
    make_segment, is_attached
):
    segment = make_segment(64)
    other = Segment.attach(segment.name) if is_attached else segment
    fcntl.flock(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert segment.name not in remove_leftovers()
    fcntl.flock(other.fileno(), fcntl.LOCK_UN)
    assert segment.name not in remove_leftovers()
    other.close()


def test_a_segment_whose_name_was_removed_can_be_attached_to_while_its_creator_lives(start_owner):
    """As a logout does with RemoveIPC."""
    owner, name = start_owner()
    (SHM_DIR / name).unlink()
    attached = Segment.attach(name)
    attached.buf[0] = 7
    again = Segment.attach(name)
    assert again.buf[0] == 7
    attached.close()
    again.close()
    owner.communicate(timeout=WAIT_S)
    with pytest.raises(FileNotFoundError, match="RemoveIPC=no"):
        Segment.attach(name)


@pytest.mark.parametrize("tail", ["", "x-1-test", "1-x-test", "1"])
def test_names_that_nobody_of_ours_gave_are_left_alone(tail):
    user = name_prefix("test").rsplit("-", 4)[0]
    strange = SHM_DIR / f"{user}-{tail}"
    strange.touch()
    try:
        assert strange.name not in remove_leftovers()
        assert strange.exists()
    finally:
        strange.unlink()


@pytest.fixture
def wakeup():
    made = Wakeup()
    yield made
    made.close()


def seconds_of(call, *arguments):
    started = time.monotonic()
    call(*arguments)
    return time.monotonic() - started


def test_a_post_before_the_wait_is_not_lost(wakeup):
    wakeup.post()
    wakeup.post()
    assert seconds_of(wakeup.wait, WAIT_S) < WAIT_S / 2


def test_posts_coalesce_and_a_wait_without_one_times_out(wakeup):
    for _ in range(3):
        wakeup.post()
    wakeup.wait(WAIT_S)
    assert seconds_of(wakeup.wait, 0.05) >= 0.045


def test_a_post_wakes_a_waiting_thread(wakeup):
    waited = []
    waiter = threading.Thread(target=lambda: waited.append(seconds_of(wakeup.wait, WAIT_S)))
    waiter.start()
    wakeup.post()
    waiter.join(WAIT_S)
    assert waited[0] < WAIT_S / 2


def test_two_threads_may_wait_for_the_same_wakeup(wakeup):
    outcomes = []

    def wait():
        try:
            wakeup.wait(0.5)
            outcomes.append("returned")
        except Exception as error:
            outcomes.append(repr(error))

    waiters = [threading.Thread(target=wait) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(WAIT_S)
    assert outcomes == ["returned", "returned"]


def answer(asked, answered):
    asked.wait(WAIT_S)
    answered.post()


def test_a_spawned_child_posts_and_waits_on_inherited_wakeups(wakeup):
    answered = Wakeup()
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=answer, args=(wakeup, answered))
    child.start()
    try:
        wakeup.post()
        assert seconds_of(answered.wait, WAIT_S) < WAIT_S * 0.9
        child.join(WAIT_S)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join(WAIT_S)
        child.close()
        answered.close()


def test_a_closed_wakeup_may_be_closed_again(wakeup):
    wakeup.close()
    wakeup.close()
