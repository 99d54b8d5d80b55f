"""What the scripts in ``experiments/`` share."""

import logging
import sys

from fedimb.study.experiments import arguments, parser_of, publish


def test_runs_and_tables_have_a_place_that_the_command_line_can_change(tmp_path, monkeypatch):
    script = tmp_path / "shifts" / "run.py"
    monkeypatch.setattr(logging, "root", logging.Logger("root"))
    monkeypatch.setattr(sys, "argv", ["run.py"])
    args = arguments(parser_of(script, "Shifts."))
    assert str(args.output) == "runs/shifts"
    assert args.to == tmp_path / "shifts"
    assert args.to.is_dir()
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", "o", "--to", str(tmp_path / "t")])
    args = arguments(parser_of(script, "Shifts."))
    assert (str(args.output), args.to.is_dir()) == ("o", True)


def test_the_table_is_written_as_it_is_shown(tmp_path, capsys):
    publish("a  b\n1  2\n\n", tmp_path)
    assert (tmp_path / "table.txt").read_text() == capsys.readouterr().out == "a  b\n1  2\n"
