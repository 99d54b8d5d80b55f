"""``fedimb report``: a run, a study, where the file goes, and what is said when there is nothing to report."""

import json
import webbrowser

import pytest

pytest.importorskip("jinja2")

from fedimb.cli import main


def test_a_run_by_its_hash(copy, capsys):
    path = copy()
    assert main(["report", path.name.rpartition("-")[2]]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.endswith(f"{path.name}/report.html")
    text = (path / "report.html").read_text()
    assert path.name in text
    assert "la_post" in text
    assert not list(path.glob("*.tmp"))


def test_a_study_by_name_and_by_path_is_the_same(copy, home, capsys):
    path = copy()
    assert main(["report", "default", "--to", "a.html"]) == 0
    assert capsys.readouterr().out == "a.html\n"
    assert main(["report", str(path.parent), "--to", "b.html"]) == 0
    assert (home / "a.html").read_bytes() == (home / "b.html").read_bytes()
    assert "2 of 2 runs finished" in (home / "a.html").read_text()
    assert main(["report", "default"]) == 0
    assert (path.parent / "report.html").is_file()


def test_an_unfinished_run_of_a_study_is_counted(copy, home):
    path = copy()
    copy("fedavg-s1-00000000", status="failed")
    other = home / "runs" / "default" / "fedavg-s1-00000000"
    config = json.loads((other / "config.json").read_text()) | {"seed": 1}
    (other / "config.json").write_text(json.dumps(config))
    assert main(["report", "default"]) == 0
    text = (path.parent / "report.html").read_text()
    assert "2 of 4 runs finished" in text
    assert "1 failed (seed 1)" in text


def test_nothing_finished_says_what_to_do(copy, capsys):
    path = copy(status="failed")
    assert main(["report", "default"]) == 1
    assert "has finished; `fedimb runs` shows" in capsys.readouterr().err
    assert main(["report", path.name]) == 1
    assert "fedimb run --resume" in capsys.readouterr().err


def test_a_wrong_name_gets_the_nearest(copy, capsys):
    copy()
    assert main(["report", "defalt"]) == 1
    expected = (
        "fedimb: no run or study 'defalt' below runs. Did you mean 'default'? `fedimb runs list` lists all runs.\n"
    )
    assert capsys.readouterr().err == expected


def test_nothing_there_at_all(home, capsys):
    assert main(["report", "x"]) == 1
    assert "none below runs: `fedimb run` creates one" in capsys.readouterr().err
    (home / "empty").mkdir()
    assert main(["report", "empty"]) == 1
    assert "empty holds no run folders" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "words"), [(".", "is a folder"), ("no/where.html", "create it first")])
def test_places_that_cannot_be_written(copy, capsys, to, words):
    copy()
    assert main(["report", "default", "--to", to]) == 2
    assert words in capsys.readouterr().err


def test_open_shows_the_file_in_the_browser(copy, home, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or True)
    copy()
    assert main(["report", "default", "--to", "r.html", "--open"]) == 0
    assert shown == [(home / "r.html").absolute().as_uri()]


def test_open_without_a_browser_says_so(copy, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    copy()
    assert main(["report", "default", "--to", "r.html", "--open"]) == 1
    assert "no browser could be started; open r.html in one" in capsys.readouterr().err
