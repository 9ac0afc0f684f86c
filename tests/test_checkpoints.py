"""A run may be killed at any moment, its files damaged and its folder contested: the last good state comes back."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from biovae.errors import ResumeError
from biovae.run.folder import claim
from biovae.training.checkpoints import Checkpoints

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, forks and locks are POSIX")


def state(step: int) -> tuple[dict, dict]:
    return {"progress": {"step": step}}, {"weight": torch.full((50,), float(step))}


def filled(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        assert checkpoints.save(step, *state(step))
    return checkpoints


def is_whole(checkpoint, step: int) -> bool:
    documents, tensors = state(step)
    return (
        checkpoint.step == step
        and checkpoint.documents == documents
        and torch.equal(checkpoint.tensors["weight"], tensors["weight"])
    )


def flip(file: Path, position: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 0x10
    file.write_bytes(content)


def test_the_newest_comes_back(tmp_path):
    assert is_whole(filled(tmp_path / "run", 1, 5, 10_000_000).latest(), 10_000_000)


def test_a_new_run_has_none(tmp_path):
    assert Checkpoints(tmp_path / "run").latest() is None


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (2, [30, 40]), (9, [10, 20, 30, 40])])
def test_only_the_last_few_are_kept(tmp_path, keep, left):
    assert filled(tmp_path, 10, 20, 30, 40, keep=keep).steps() == left


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


def test_states_that_are_not_finite_come_back_too(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {}, {"best": torch.tensor(-torch.inf)})
    assert checkpoints.latest().tensors["best"] == -torch.inf


@given(st.data())
def test_a_damaged_newest_one_is_passed_over_and_said_so(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    checkpoints = filled(folder, 10, 20)
    newest = folder / "step-000020"
    victim = newest / data.draw(st.sampled_from(sorted(os.listdir(newest))))
    match data.draw(st.sampled_from(["flip", "cut", "delete"])):
        case "flip":
            flip(victim, data.draw(st.floats(0, 1, exclude_max=True)))
        case "cut":
            os.truncate(victim, data.draw(st.integers(0, victim.stat().st_size - 1)))
        case "delete":
            victim.unlink()
    assert is_whole(checkpoints.latest(), 10)
    assert len(checkpoints.notices) == 1
    assert "checkpoint 20 was passed over" in checkpoints.notices[0]


def test_all_damaged_is_not_a_new_run(tmp_path):
    checkpoints = filled(tmp_path, 10, 20)
    for step in ("step-000010", "step-000020"):
        flip(tmp_path / step / "weights.safetensors", 0.9)
    with pytest.raises(ResumeError, match="found 2 damaged"):
        checkpoints.latest()


def test_a_run_that_went_back_drops_the_future_it_did_not_take(tmp_path):
    checkpoints = filled(tmp_path, 10, 20, keep=1)
    flip(tmp_path / "step-000020" / "weights.safetensors", 0.9)
    checkpoints.save(15, *state(15))
    assert is_whole(checkpoints.latest(), 15)
    checkpoints.save(20, *state(20))
    assert is_whole(checkpoints.latest(), 20)
    assert checkpoints.steps() == [20]


def test_a_damaged_one_is_replaced_at_the_same_step(tmp_path):
    checkpoints = filled(tmp_path, 10)
    (tmp_path / "step-000010" / "manifest.json").unlink()
    checkpoints.save(10, *state(10))
    assert is_whole(checkpoints.latest(), 10)


def test_what_a_killed_run_left_is_ignored_then_cleaned(tmp_path):
    checkpoints = filled(tmp_path, 10)
    (tmp_path / ".tmp-step-000020-abcd").mkdir()
    (tmp_path / ".tmp-step-000020-abcd" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "step-notes").mkdir()
    assert is_whole(checkpoints.latest(), 10)
    with checkpoints.lock():
        assert sorted(os.listdir(tmp_path)) == ["LOCK", "step-000010", "step-notes"]


def test_a_full_disk_leaves_the_earlier_ones(tmp_path):
    resource = pytest.importorskip("resource")
    checkpoints = filled(tmp_path, 10, 20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="nothing was changed"):
            checkpoints.save(30, {}, {"large": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.steps() == [10, 20]
    assert is_whole(checkpoints.latest(), 20)


def test_a_forked_worker_does_not_save(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, 10)
    with checkpoints.lock():
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert not checkpoints.save(20, *state(20))
        monkeypatch.undo()
        assert checkpoints.steps() == [10]


# ------------------------------------------------------------------ one process at a time


def test_a_held_folder_is_refused_by_name_of_the_holder(tmp_path):
    with (
        Checkpoints(tmp_path).lock(),
        pytest.raises(ResumeError, match=f"process {os.getpid()} on {socket.gethostname()}"),
        Checkpoints(tmp_path).lock(),
    ):
        pytest.fail("two held it")
    with Checkpoints(tmp_path).lock():
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path).lock():
        raise KeyboardInterrupt
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.lock():
        assert checkpoints.notices == []


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def record(folder: Path, pid: int, **fields) -> None:
    began = Path(f"/proc/{pid}/stat")
    began = began.read_text().rpartition(")")[2].split()[19] if began.exists() else ""
    holder = {"pid": pid, "host": socket.gethostname(), "began": began} | fields
    (folder / "LOCK").write_text(json.dumps(holder))


def test_a_living_holder_is_respected_and_a_dead_one_is_not(tmp_path, sleeper):
    record(tmp_path, sleeper.pid)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ResumeError, match=f"process {sleeper.pid}"), checkpoints.lock():
        pytest.fail("two held it")
    sleeper.kill()
    sleeper.wait()
    with checkpoints.lock():
        assert str(sleeper.pid) in checkpoints.notices[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_number_used_again_is_not_the_same_process(tmp_path, sleeper):
    record(tmp_path, sleeper.pid, began="1")
    with Checkpoints(tmp_path).lock():
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_dead_holder_that_nobody_collected_is_dead(tmp_path, sleeper):
    record(tmp_path, sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    with Checkpoints(tmp_path).lock():
        pass


def test_another_machine_is_never_overruled(tmp_path):
    record(tmp_path, 1, host="elsewhere")
    with pytest.raises(ResumeError, match="on elsewhere"), Checkpoints(tmp_path).lock():
        pytest.fail("two held it")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\0" * 9])
def test_a_broken_record_is_nobody_s(tmp_path, text):
    (tmp_path / "LOCK").write_text(text)
    with Checkpoints(tmp_path).lock():
        pass


# ------------------------------------------------------------------ killed at any moment

VICTIMS = """
import os, random, signal, sys, time
import torch
from biovae.run.folder import claim
from biovae.training.checkpoints import Checkpoints

torch.set_num_threads(1)
folder, rounds = sys.argv[1], int(sys.argv[2])
chance = random.Random(0)
last = 0
for _ in range(rounds):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        checkpoints = Checkpoints(folder, keep=2)
        with checkpoints.lock():
            found = checkpoints.latest()
            step = found.step if found else 0
            while True:
                step += 1
                weight = torch.full((20_000,), float(step))
                checkpoints.save(step, {"progress": {"step": step}}, {"weight": weight, "second": weight})
                os.write(writer, step.to_bytes(8, "little"))
    os.close(writer)
    time.sleep(chance.uniform(0.02, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = b""
    while chunk := os.read(reader, 1 << 16):
        reported += chunk
    last = max(last, int.from_bytes(reported[-8:], "little"))
    found = Checkpoints(folder).latest()
    assert (found.step if found else 0) in (last, last + 1), (found.step if found else None, last)
    last = found.step if found else 0  # a child may be killed between saving a step and reporting it
    assert not found or all((tensor == found.step).all() for tensor in found.tensors.values())
    assert not found or found.documents == {"progress": {"step": found.step}}
checkpoints = Checkpoints(folder)
with checkpoints.lock():
    print(last, len(checkpoints.steps()), *sorted(os.listdir(folder)))
"""


def test_a_kill_at_any_moment_costs_nothing_that_was_saved(tmp_path):
    command = [sys.executable, "-c", VICTIMS, str(tmp_path / "run"), "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    last, kept, *names = done.stdout.split()
    assert int(last) > 15
    assert 1 <= int(kept) <= 3
    assert not [name for name in names if name.startswith(".tmp-")]


HOLDER = """
import sys
from biovae.run.folder import claim
from biovae.training.checkpoints import Checkpoints

with Checkpoints(sys.argv[1]).lock():
    print("held", flush=True)
    input()
"""


def test_two_processes_do_not_share_a_folder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ResumeError, match=f"process {other.pid}"), Checkpoints(tmp_path).lock():
            pytest.fail("two held it")
        other.kill()
        other.wait()
        with Checkpoints(tmp_path).lock():
            pass


def test_the_folder_of_a_run_at_work_is_not_emptied(tmp_path):
    (tmp_path / "checkpoints" / "step-000100").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000100" / "x").write_text("a state")
    with Checkpoints(tmp_path / "checkpoints").lock(), pytest.raises(ResumeError, match="in use"):
        claim(tmp_path, resume=False)
    assert (tmp_path / "checkpoints" / "step-000100" / "x").exists()
    claim(tmp_path, resume=False)
    assert not (tmp_path / "checkpoints" / "step-000100").exists()
