"""``fedimb completion``: what a shell offers, asked of the shell itself where it is installed."""

import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

from fedimb.cli import completion, main
from fedimb.cli.json_mode import SILENT


@pytest.fixture(scope="module")
def table():
    return completion.collect()


@pytest.fixture(scope="module")
def offered(table, tmp_path_factory):
    """What bash offers after each of some lines."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    home = tmp_path_factory.mktemp("bash")
    (home / "fedimb.bash").write_text(completion.bash(table))
    for name in ("fedavg-s0-0123abcd", "scope-s1-4567cdef"):
        (home / "runs" / "default" / name).mkdir(parents=True)
        (home / "runs" / "default" / name / "config.json").write_text("{}")

    def ask(line):
        text = 'source fedimb.bash; COMP_LINE=$1; COMP_POINT=${#1}; _fedimb; printf "%s\\n" "${COMPREPLY[@]}"'
        words = ["bash", "--norc", "-c", text, "bash", line]
        done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fedimb ru", ["run", "runs"]),
        ("fedimb runs ", ["list", "rm", "gc"]),
        ("fedimb node data w", ["withdraw"]),
        ("fedimb runs list --o", ["--output-dir"]),
        ("fedimb node audit export --as ", ["csv", "json"]),
        ("fedimb node audit export --out ", []),  # files, which bash completes itself
        ("fedimb run loss=foc", ["focal"]),
        ("fedimb sweep loss=ce,foc", ["ce,focal"]),
        ("fedimb run calibration=[none,la", ["[none,la_post"]),
        ("fedimb run seed=1 strategy=sco", ["scope"]),
        ("fedimb run local.lr", ["local.lr="]),
        ("fedimb run --resume fed", ["fedavg-s0-0123abcd"]),
        ("fedimb show sc", ["scope-s1-4567cdef"]),
        ("fedimb predict sc", ["scope-s1-4567cdef"]),
        ("fedimb compare sc", ["scope-s1-4567cdef"]),
        ("fedimb compare study.yaml local.lr", ["local.lr="]),
        ("fedimb list los", ["losses"]),
        ("fedimb new strat", ["strategy"]),
        ("fedimb completion z", ["zsh"]),
        ("fedimb nothing ", []),
    ],
)
def test_bash_offers(offered, line, expected):
    assert offered(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fedimb ru", ["run", "runs"]),
        ("fedimb node data w", ["withdraw"]),
        ("fedimb runs list --o", ["--output-dir"]),
        ("fedimb node audit export --as ", ["csv", "json"]),
        ("fedimb run loss=foc", ["loss=focal"]),
        ("fedimb sweep loss=ce,foc", ["loss=ce,focal"]),
        ("fedimb run calibration=[none,la", ["calibration=[none,la_post"]),
        ("fedimb run seed=1 strategy=sco", ["strategy=scope"]),
        ("fedimb run local.lr", ["local.lr="]),
        ("fedimb list los", ["losses"]),
    ],
)
def test_fish_offers(table, tmp_path, line, expected):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    (tmp_path / "fedimb.fish").write_text(completion.fish(table))
    words = ["fish", "--no-config", "-c", f"source fedimb.fish; complete -C '{line}'"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert [offer.split("\t")[0] for offer in done.stdout.splitlines()] == expected


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("fedimb list los", "fedimb list losses "),
        ("fedimb node data w", "fedimb node data withdraw "),
        ("fedimb sweep loss=ce,foc", "fedimb sweep loss=ce,focal "),
    ],
)
def test_the_first_tab_of_a_zsh_completes(table, tmp_path, line, completed):
    """The script lies in ``$fpath``, as the help says: the first Tab loads it and must already complete."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "_fedimb").write_text(completion.zsh(table))
    prompt = "ready> "
    shell, terminal = pty.fork()
    if shell == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f"], {**os.environ, "TERM": "dumb", "PS1": prompt})
    try:
        _read_until(terminal, prompt)
        os.write(terminal, f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D\n".encode())
        _read_until(terminal, prompt)
        os.write(terminal, f"{line}\t".encode())
        assert completed in _read_until(terminal, completed)
    finally:
        os.kill(shell, signal.SIGKILL)
        os.waitpid(shell, 0)
        os.close(terminal)


def _read_until(terminal: int, end: str, seconds: float = 30.0) -> str:
    """What a terminal shows until ``end`` is there; all there is when the time is up."""
    shown, limit = "", time.monotonic() + seconds
    while end not in shown and time.monotonic() < limit:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_every_command_and_option_is_in_every_script(table):
    scripts = {"bash": completion.bash(table), "zsh": completion.zsh(table), "fish": completion.fish(table)}
    assert {"run", "node data withdraw", "deploy plan", *SILENT} <= set(table.options)
    for path, options in table.options.items():
        assert "--help" in options
        assert ("--json" in options) == (path not in SILENT)
        for option in options:
            assert f" {option} " in scripts["bash"].replace("'", " "), (path, option)
            assert f" {option} " in scripts["zsh"].replace("'", " "), (path, option)
            assert f"-l {option[2:]}" in scripts["fish"], (path, option)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_one_the_shell_reads(shell, capsys, monkeypatch, table, tmp_path):
    monkeypatch.setattr(completion, "collect", lambda: table)
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert shell in script.read_text().splitlines()[0] or "#compdef" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", "tcsh"])
    assert stop.value.code == 2
    assert "tcsh" in capsys.readouterr().err
