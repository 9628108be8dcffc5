import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from acf.errors import ConfigError, UnwritableError
from acf.runs.lease_queue import Place, lease_folder
from acf.runs.leases import leased_device, leased_devices

HOLDER = """
import sys, time
from pathlib import Path
from acf.runs.lease_queue import Place
with Place(Path(sys.argv[1]), ["cpu#0"], 1) as place:
    assert place.take() == ["cpu#0"]
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ACF_DEVICES", raising=False)
    return tmp_path / f"acf-leases-{os.getuid()}"


def see_gpus(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Have torch report these CUDA devices, numbered in this order."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=uuids[number]))


@contextmanager
def waits(name: str, count: int, said: pytest.CaptureFixture[str]) -> Iterator[list[list[str]]]:
    """A second job that has to wait until the body ends it; yields what it will have got."""
    got: list[list[str]] = []

    def job() -> None:
        with leased_devices(name, count) as devices:
            got.append([str(device) for device in devices])

    thread = threading.Thread(target=job)
    thread.start()
    deadline = time.monotonic() + 20
    while "waiting" not in (text := said.readouterr().out):
        assert time.monotonic() < deadline
        assert thread.is_alive(), text
        time.sleep(0.02)
    assert str(os.getpid()) in text
    yield got
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_job_gets_a_gpu_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    see_gpus(monkeypatch, "GPU-a", "GPU-b")
    with leased_devices(name) as first, ExitStack() as stack, leased_devices(name) as second:
        assert [str(device) for device in first + second] == ["cuda:0", "cuda:1"]
        got = stack.enter_context(waits(name, 1, capsys))
        assert not got
    assert got == [["cuda:1"]]


def test_a_gpu_is_known_however_it_is_numbered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    see_gpus(monkeypatch, "GPU-a", "GPU-b")
    with ExitStack() as stack:
        with leased_devices("cuda:1"):
            see_gpus(monkeypatch, "GPU-b", "GPU-c")
            with leased_devices("auto") as other:
                assert other == [torch.device("cuda:1")]
            got = stack.enter_context(waits("cuda:0", 1, capsys))
        see_gpus(monkeypatch, "GPU-b", "GPU-c")
    assert got == [["cuda:0"]]


def test_a_job_of_two_gpus_is_not_overtaken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    see_gpus(monkeypatch, "GPU-a", "GPU-b", "GPU-c")
    with ExitStack() as stack, leased_devices("cuda:0"):
        monkeypatch.setenv("ACF_DEVICES", "cuda:0,cuda:1")
        got = stack.enter_context(waits("auto", 2, capsys))
        with Place(folder, ["GPU-b#0"], 1) as later, Place(folder, ["GPU-c#0"], 1) as elsewhere:
            assert not later.take()
            assert "asked for before by process" in later.reason()
            assert elsewhere.take() == ["GPU-c#0"]
    assert got == [["cuda:0", "cuda:1"]]


def test_jobs_that_want_all_devices_do_not_block_each_other(tmp_path: Path, folder: Path) -> None:
    lease_folder()
    taken: list[int] = []
    used = threading.Semaphore(1)

    def job(number: int) -> None:
        for _ in range(5):
            with Place(folder, ["a", "b"] if number % 2 else ["b", "a"], 2) as place:
                while not place.take():
                    time.sleep(0.001)
                assert used.acquire(blocking=False)
                taken.append(number)
                used.release()

    threads = [threading.Thread(target=job, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == [0] * 5 + [1] * 5 + [2] * 5
    assert {path.name for path in folder.iterdir()} == {"turn"}


def test_the_device_of_a_killed_process_is_free_at_once(folder: Path) -> None:
    lease_folder()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        with Place(folder, ["cpu#0"], 1) as place:
            assert not place.take()
            assert f"used by process {holder.pid} (" in place.reason()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert place.take() == ["cpu#0"]
    assert {path.name for path in folder.iterdir()} == {"turn"}


def test_ctrl_c_ends_a_job_that_waits_and_its_place_goes(trained: Path, folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ACF_DEVICES": "cpu", "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    lease_folder()
    with Place(folder, ["cpu#0"], 1) as place:
        assert place.take()
        command = [sys.executable, "-m", "acf.cli", "train", "--experiment", "digits", "--variant", "resflow"]
        with subprocess.Popen(
            command, cwd=trained, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as job:
            assert job.stdout is not None
            assert "waiting until a device is free of cpu: used by" in job.stdout.readline()
            job.send_signal(signal.SIGINT)
            _, errors = job.communicate(timeout=20)
        assert job.returncode == 130
        assert errors.count("\n") == 1
        assert len(list(folder.glob("*.lock"))) == 1


def test_restoring_needs_no_device(trained: Path, folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ACF_DEVICES": "cpu", "TMPDIR": str(tmp_path)}
    lease_folder()
    with Place(folder, ["cpu#0"], 1) as place:
        assert place.take()
        command = [sys.executable, "-m", "acf.cli", "train", "--experiment", "digits", "--variant", "acf-l2"]
        done = subprocess.run(command, cwd=trained, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "restored" in done.stdout


def test_a_device_listed_twice_serves_two_and_what_needs_no_lease_takes_none(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with leased_devices("auto", 3) as devices:
        assert devices == [torch.device("cpu")] * 3
    with leased_device("cpu") as one, leased_device("cpu") as two:
        assert one == two == torch.device("cpu")
    assert not folder.exists()
    monkeypatch.setenv("ACF_DEVICES", "cpu, cpu")
    with leased_device() as one, leased_device() as two:
        assert one == two == torch.device("cpu")
        assert len(list(folder.glob("*.lock"))) == 2


@pytest.mark.parametrize(
    ("listed", "name", "count", "message"),
    [
        ("cpu,gpu", "auto", 1, "ACF_DEVICES lists 'gpu', which is none of cpu, mps, cuda:0"),
        ("cuda", "auto", 1, "ACF_DEVICES lists 'cuda', which is none of"),
        ("cuda:2", "auto", 1, "ACF_DEVICES lists cuda:2, and this process sees 2 CUDA devices"),
        ("cuda:0", "auto", 2, r"2 devices are asked for, and there are 1 \(cuda:0\)"),
        ("", "cuda", 3, r"3 devices are asked for, and there are 2 \(cuda:0, cuda:1\)"),
        ("cuda:0", "gpu", 1, "device 'gpu' is none of cpu, cuda"),
    ],
)
def test_what_cannot_be_leased_is_said(
    listed: str, name: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_gpus(monkeypatch, "GPU-a", "GPU-b")
    monkeypatch.setenv("ACF_DEVICES", listed)
    with pytest.raises(ConfigError, match=message), leased_devices(name, count):
        pass


def test_a_folder_that_others_have_put_in_place_is_not_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert lease_folder() == tmp_path / "home/.cache/acf/leases"
    (tmp_path / "home/.cache/acf/leases").rmdir()
    (tmp_path / "home/.cache/acf/leases").touch()
    with pytest.raises(UnwritableError, match="TMPDIR"):
        lease_folder()


def test_the_folder_is_this_users_alone(folder: Path) -> None:
    folder.mkdir(mode=0o777)
    assert lease_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
