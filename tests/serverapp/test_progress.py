"""What a pipe or a log shows of a run's progress: lines now and then, and always the final count."""

import pytest

from fedimb.serverapp.progress import ProgressBar


def counts(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_short_run_ends_with_the_full_count(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(18, unit="runs") as progress:
        progress.title("alphas")
        progress.skip(4)
        for _ in range(14):
            progress.skip(1)
    assert counts(capsys) == ["alphas: 18/18 runs"]


def test_the_count_follows_lines_that_were_due(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedimb.serverapp.progress._LINE_EVERY_S", 0.0)
    with ProgressBar(2) as progress:
        progress.title("fedavg")
        progress.skip(1)
        progress.work("generator", 10)(3)
        progress.skip(1)
    assert counts(capsys) == ["fedavg: 1/2 rounds", "fedavg: generator 3/10", "fedavg: 2/2 rounds"]


def test_an_interrupted_run_ends_with_the_rounds_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        with ProgressBar(48) as progress:
            progress.title("fedavg")
            progress.skip(26)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert counts(capsys) == ["fedavg: 26/48 rounds"]


@pytest.mark.parametrize(("total", "enabled"), [(3, False), (0, True)])
def test_nothing_is_printed_if_silent_or_nothing_was_done(
    total: int, enabled: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar(total, enabled=enabled) as progress:
        if total:
            progress.skip(total)
    assert counts(capsys) == []


def test_other_work_ends_with_its_full_count_if_a_line_showed_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = ProgressBar(1)
    progress.title("fedssg")
    quick = progress.work("samples", 5)
    quick(5)
    monkeypatch.setattr("fedimb.serverapp.progress._LINE_EVERY_S", 0.0)
    step = progress.work("generator", 10)
    step(3)
    monkeypatch.setattr("fedimb.serverapp.progress._LINE_EVERY_S", 10.0)
    step(5)
    step(2)
    assert counts(capsys) == ["fedssg: generator 3/10", "fedssg: generator 10/10"]


def test_a_note_comes_before_the_rounds_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(2, unit="runs") as progress:
        for seed in (0, 1):
            progress.title(f"seed {seed}")
            progress.note("minority: rare (28) of 2 classes (training rows)")
            progress.skip(1)
    assert counts(capsys) == ["seed 0: minority: rare (28) of 2 classes (training rows)", "seed 1: 2/2 runs"]
    with ProgressBar(1, enabled=False) as progress:
        progress.note("minority: a (1) of 2 classes (training rows)")
    assert counts(capsys) == []
