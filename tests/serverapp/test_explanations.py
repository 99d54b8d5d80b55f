"""Explanations end to end: at the end of a run, of a finished one by ``fedimb explain``, in reports and cards."""

import json

import numpy as np
import pytest
from small_runs import launch_in

from fedimb.cli import main
from fedimb.errors import ConfigError
from fedimb.report.explanations import explanation_lines
from fedimb.rundir.explanations import read_explanations
from fedimb.rundir.seal import Damaged
from fedimb.serverapp.explanations import overlaps

pytest.importorskip("captum")

OF_A_RUN = (
    "engine=inline",
    "rounds=2",
    "clients.count=2",
    "partition=iid",
    "data.source.rows=200",
    "explanation=[integrated_gradients,surrogate_tree]",
    "explanation.integrated_gradients.steps=2",
    "explanation.integrated_gradients.floor=5",
)


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    words = [word for word in OF_A_RUN if not word.startswith("data.source")]
    return launch_in(tmp_path_factory.mktemp("explained"), "data=synthetic_table", *words)


def test_a_run_explains_its_model_and_single_rows_stay(explained):
    found = read_explanations(explained.folder)
    assert sorted(found) == ["integrated_gradients", "surrogate_tree"]
    facts = found["integrated_gradients"]
    assert facts["asked"] == 2
    assert facts["without"] == []
    maps, rows = np.array(facts["maps"]), np.array(facts["rows"])
    assert np.allclose(maps[rows > 0].sum(axis=1), 1, atol=1e-4)
    assert not maps[rows == 0].any()
    assert 0 < found["surrogate_tree"]["fidelity"] <= 1
    for client in (0, 1):
        folder = explained.folder / "clients" / f"client-{client:06d}" / "explanations"
        assert {path.name for path in folder.iterdir()} == {"integrated_gradients.npz", "sent.jsonl"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        [line] = [json.loads(line) for line in (folder / "sent.jsonl").read_text().splitlines()]
        assert line["records"]["x.explained/integrated_gradients/rows"] == [len(rows)]
        kept = np.load(folder / "integrated_gradients.npz")
        assert len(kept["input"]) == len(kept["row"]) > 0
    assert not list((explained.folder / "artifacts").rglob("integrated_gradients*.npz"))
    steps = b"".join(path.read_bytes() for path in (explained.folder / "steps").iterdir())
    assert b"attributions" not in steps


def test_explaining_again_gives_the_same_and_report_and_card_show_it(explained, tmp_path, capsys, monkeypatch):
    before = read_explanations(explained.folder)["integrated_gradients"]
    words = ["integrated_gradients.steps=2", "integrated_gradients.floor=5"]
    assert main(["explain", str(explained.folder), "integrated_gradients", *words]) == 0
    shown = capsys.readouterr().out
    assert "sanity check (Adebayo et al. 2018)" in shown
    assert "(minority)" in shown
    assert (explained.folder / "explanations" / "integrated_gradients.json").is_file()
    assert read_explanations(explained.folder)["integrated_gradients"] == before
    assert main(["predict", str(explained.folder), "--out", str(tmp_path / "p.csv")]) == 0
    card = (tmp_path / "p.csv.card.md").read_text()
    assert "## What the model looks at" in card
    assert "fidelity" in card
    assert main(["report", str(explained.folder), "--to", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert 'id="explanations"' in page
    assert "in common with common classes" in page


def test_attackers_rows_explain_nothing_in_a_run_or_after_it(tmp_path, capsys):
    words = ["data=synthetic_table", *(w for w in OF_A_RUN if "data." not in w and "clients.count" not in w)]
    only = ["explanation=[surrogate_tree]", "rounds=1", "clients.count=4", "attack=label_flip", "attack.fraction=0.25"]
    words = [w for w in words if not w.startswith(("explanation", "rounds"))]
    done = launch_in(tmp_path, *words, *only)
    before = read_explanations(done.folder)["surrogate_tree"]
    assert before["asked"] == 3
    assert main(["explain", str(done.folder), "surrogate_tree"]) == 0
    capsys.readouterr()
    assert read_explanations(done.folder)["surrogate_tree"] == before


def test_a_changed_file_is_told(explained):
    file = explained.folder / "explanations" / "integrated_gradients.json"
    text = file.read_text()
    try:
        file.write_text(text.replace('"asked": 2', '"asked": 3'))
        with pytest.raises(Damaged, match="fedimb explain"):
            read_explanations(explained.folder)
    finally:
        file.write_text(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["grad_cam"], "use integrated_gradients"),
        (["lmie"], "Did you mean 'lime'"),
        (["what_if.to=x"], "name the explanation first"),
        (["what_if", "what_if.to=nobody"], "no such class"),
        (["none"], "explains nothing"),
    ],
)
def test_what_cannot_be_explained_is_one_line(explained, words, says, capsys):
    assert main(["explain", str(explained.folder), *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def test_a_run_that_cannot_be_explained_does_not_start(tmp_path):
    with pytest.raises(ConfigError, match=r"surrogate_tree.*explains the columns of a table"):
        launch_in(tmp_path, "engine=inline", "explanation=surrogate_tree")
    assert not (tmp_path / "runs").exists()


def test_a_model_of_random_weights_is_told_in_the_panel():
    random = {"evidence": 0.02, "random": [-0.1] * 18 + [0.05], "p": 0.1, "correlation": 0.1, "passed": False}
    facts = {"explains": "attribution", "settings": {"floor": 10}, "asked": 2, "without": [], "kind": "picture"}
    facts |= {"class_names": ["a", "b"], "minority": [1], "rows": [20, 12], "features": [], "overlap": {"1": 0.5}}
    facts |= {"maps": [[[0.5, 0.5]], [[1.0, 0.0]]], "sanity": random, "name": "grad_cam"}
    text = "\n".join(explanation_lines({"grad_cam": facts}))
    assert "FAILED" in text
    assert "do not read them" in text
    assert text.index("b (minority)") < text.index("a  ")


def test_what_a_minority_has_in_common_with_the_others():
    maps = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]])
    assert overlaps(maps, np.array([10, 10, 0]), (1, 2)) == {"1": 0.5, "2": None}
    assert overlaps(maps, np.array([0, 10, 0]), (1,)) == {"1": None}
