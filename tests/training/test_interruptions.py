"""Signals, damaged checkpoints, and output that nobody reads: no step is lost that was written."""

import io
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from acf.errors import StoppedError, TrainingError
from acf.flows.certificate import Certificate
from acf.flows.flow import Flow
from acf.registry import OPTIMISERS
from acf.training import average
from acf.training.checkpoint import BEFORE, NAME, read_checkpoint, write_checkpoint
from acf.training.trainer import Trainer
from tests.training.trainers import SMALL, same, trainer

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_stops_training_after_the_step_and_handlers_come_back(tmp_path: Path, sent: signal.Signals) -> None:
    run = trainer(tmp_path, SMALL)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    original = run._gradient_step

    def interrupted(rate: float) -> None:
        if run.step == 2:
            signal.raise_signal(sent)
        original(rate)

    run._gradient_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(StoppedError, match=rf"^test: stopped by {sent.name} after step 3\. Run the same command again"):
        run.run()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    if sent != signal.SIGINT:
        return
    resumed, whole = trainer(tmp_path, SMALL), trainer(tmp_path / "whole", SMALL)
    assert resumed.step == 3
    assert resumed.seconds == run.seconds
    assert same(resumed.run()[0].state_dict(), whole.run()[0].state_dict())
    assert same(run.run()[0].state_dict(), whole.average.module.state_dict())
    assert rows(resumed) == rows(whole)


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS.keys() - {"adamw"}))  # which the test above has
def test_every_optimiser_goes_on_with_the_same_bits(tmp_path: Path, optimiser: str) -> None:
    stopped, whole = (trainer(tmp_path / name, SMALL, optimiser=optimiser, steps=5) for name in ("a", "b"))
    stop_after_step(stopped, 3)
    resumed = trainer(tmp_path / "a", SMALL, optimiser=optimiser, steps=5)
    assert resumed.step == 3
    assert same(resumed.run()[0].state_dict(), whole.run()[0].state_dict())


PARTS = {"first step": 0, "first step after a start": 4, "validation": 4, "tightening": 4, "last certificate": 8}
"""A part of training that may take long, and the number of steps that are done when a signal comes in it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A training that nothing has interrupted."""
    run = trainer(tmp_path_factory.mktemp("whole"), SMALL)
    run.run()
    return run


@pytest.mark.parametrize("part", PARTS)
def test_a_signal_ends_what_takes_long_and_it_is_done_again_with_the_same_bits(
    tmp_path: Path, part: str, whole: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = trainer(tmp_path / "cut", SMALL), whole.average.module.state_dict()
    if part == "first step after a start":
        stop_after_step(run, 4)
        run = trainer(tmp_path / "cut", SMALL)
    log_prob, certify, calls = Flow.log_prob_unchecked, average.tighten, {"validation": 0, "certificate": 0}

    def slow_log_prob(flow: Flow, *arguments: Any, **named: Any) -> Tensor:
        values = log_prob(flow, *arguments, **named)
        calls["validation"] += not flow.training
        if (flow.training and "first step" in part) or (part == "validation" and calls["validation"] == 2):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the signal did not end it")
        return values

    def slow_tighten(flow: Flow) -> Certificate:
        certificate = certify(flow)
        calls["certificate"] += 1
        if (part, calls["certificate"]) in (("tightening", 1), ("last certificate", 3)):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the signal did not end it")
        return certificate

    with monkeypatch.context() as patch:
        patch.setattr(Flow, "log_prob_unchecked", slow_log_prob)
        patch.setattr(average, "tighten", slow_tighten)
        with pytest.raises(StoppedError, match=rf"^test: stopped by SIGTERM after step {PARTS[part]}\. Run the same"):
            run.run()
    resumed = trainer(tmp_path / "cut", SMALL)
    assert resumed.step == PARTS[part]
    for again in (resumed, run):
        assert same(again.run()[0].state_dict(), expected)
        assert rows(again) == rows(whole)


def rows(run: Trainer) -> list[dict[str, object]]:
    return [{**row, "seconds": None} for row in run.history.rows]


def stop_after_step(run: Trainer, step: int) -> None:
    original = run._gradient_step

    def interrupted(rate: float) -> None:
        original(rate)
        if run.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)

    run._gradient_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        run.run()
    run._gradient_step = original  # type: ignore[method-assign]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` has SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = trainer(tmp_path, SMALL)
        original = run._gradient_step

        def hung_up(rate: float) -> None:
            signal.raise_signal(signal.SIGHUP)
            original(rate)

        run._gradient_step = hung_up  # type: ignore[method-assign]
        run.run()
        assert run.step == 8
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_runs_in_a_thread_of_a_larger_program(tmp_path: Path) -> None:
    run = trainer(tmp_path, SMALL, steps=2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run.run).result()
    assert run.step == 2


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trainer(tmp_path, SMALL).run()[0].state_dict()
    content = bytearray((tmp_path / NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / NAME).write_bytes(content)
    again = trainer(tmp_path, SMALL)
    assert again.step == 4
    assert "damaged" in capsys.readouterr().out
    assert same(again.run()[0].state_dict(), whole)
    (tmp_path / NAME).write_bytes(b"")
    (tmp_path / BEFORE).write_bytes(b"")
    afresh = trainer(tmp_path, SMALL)
    assert afresh.step == 0
    assert capsys.readouterr().out.count("damaged (empty); training starts again") == 2


def test_a_checkpoint_of_another_torch_is_refused_and_kept(tmp_path: Path) -> None:
    trainer(tmp_path, SMALL).run()
    content = read_checkpoint(tmp_path)
    assert content is not None
    del content["optimiser"]["param_groups"]
    write_checkpoint(tmp_path, content)
    with pytest.raises(TrainingError, match=r"is whole but torch .* cannot use it .*; go on with the version"):
        trainer(tmp_path, SMALL)
    assert (tmp_path / NAME).is_file()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_line_is_lost_for_want_of_a_character(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", output)
    trainer(tmp_path, SMALL).run()
    output.seek(0)
    assert output.read().count("bits/dim  ") == 2


def test_training_goes_on_when_nobody_reads_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        run = trainer(tmp_path, SMALL)
        run.run()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)  # what is left in the buffer goes there
    assert run.step == 8
