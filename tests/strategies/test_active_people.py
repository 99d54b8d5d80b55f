"""Active learning with people: what readers are told, what comes late, and rows that nobody has labelled."""

import csv
import json

import numpy as np
import pytest
from small_runs import launch_in, weights_sha

from fedimb.annotation.items import read_map
from fedimb.clients.active import ActiveClient
from fedimb.errors import DataError, RunWaiting
from fedimb.serverapp.launch import resume

NAMES = ("cold", "warm", "hot")
RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = np.eye(3)[Y].repeat(2, axis=1) + 0.3 * RNG.standard_normal((60, 6))


def source(folder, train_labels):
    """60 rows with these labels and a test set of 30, in MedMNIST's layout."""
    path = folder / "rows.npz"
    parts = {"train_images": X, "train_labels": train_labels, "test_images": X[:30], "test_labels": Y[:30]}
    np.savez(path, **parts)
    return [
        "data=npz", f"data.source.path={path}", f"data.source.class_names=[{', '.join(NAMES)}]", "data.n_max=null",
        "engine=inline", "clients.count=1", "partition=iid", "rounds=3", "strategy=active", "strategy.active.cycles=3",
        "strategy.active.budget=6", "strategy.active.query={name: entropy}",
    ]  # fmt: skip


def asked_people(folder, words, readers, **settings):
    """The finished run; ``readers(cycle, items)`` gives label texts by item id. Returns (result, worklist folder)."""
    options = ", ".join(f"{key}: {value}" for key, value in {"name": "worklist", **settings}.items())
    oracle = f"strategy.active.oracle={{{options}, folder: {folder}/sites}}"
    with pytest.raises(RunWaiting):
        launch_in(folder, *words, oracle)
    (run,) = (folder / "runs" / "default").iterdir()
    (own,) = (folder / "sites").glob("client-*/worklists/*")
    for cycle in (1, 2, 3):
        labels = readers(cycle, [item for item in read_map(own) if item.cycle == cycle], own)
        text = "\n".join(["id,label", *(f"{key},{label}" for key, label in labels.items())])
        (own / f"cycle-{cycle:02d}" / "returned" / "anna.csv").write_text(text)
        if cycle < 3:
            with pytest.raises(RunWaiting):
                resume(run)
    return resume(run), own


def truth(cycle, items, own):
    return {item.id: NAMES[Y[item.row]] for item in items}


def tasks(own, cycle):
    with (own / f"cycle-{cycle:02d}" / "tasks.csv").open(encoding="utf-8-sig", newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


@pytest.mark.slow
def test_readers_see_what_the_global_model_takes_a_row_for_only_if_told_to(tmp_path, monkeypatch):
    chosen = []
    original = ActiveClient._have_labelled

    def watch(self, rows, asked, context, local, distance, predictions=None):
        if predictions is not None:
            logits = context.forward("train")[1][np.searchsorted(context.data.rows("train"), rows)]
            assert predictions.tolist() == logits.argmax(1).tolist()
            chosen.append(dict(zip(rows.tolist(), predictions.tolist(), strict=True)))
        return original(self, rows, asked, context, local, distance, predictions)

    monkeypatch.setattr(ActiveClient, "_have_labelled", watch)
    (tmp_path / "told").mkdir()
    _, own = asked_people(tmp_path / "told", source(tmp_path, Y), truth, show_prediction="true")
    rows = {item.id: item.row for item in read_map(own)}
    assert "prediction" not in next(iter(tasks(own, 1).values()))  # the first rows are drawn at random
    for cycle in (2, 3):
        shown = {rows[key]: line["prediction"] for key, line in tasks(own, cycle).items()}
        assert shown == {row: NAMES[label] for row, label in chosen[cycle - 2].items()}
    (tmp_path / "untold").mkdir()
    _, own = asked_people(tmp_path / "untold", source(tmp_path, Y), truth)
    assert all("prediction" not in line for cycle in (1, 2, 3) for line in tasks(own, cycle).values())


@pytest.mark.slow
def test_rows_without_a_label_may_be_given_any_class_it_is_not_read(tmp_path):
    shas = []
    for name, labels in (("known", Y), ("unknown", np.zeros_like(Y))):
        (tmp_path / name).mkdir()
        result, _ = asked_people(tmp_path / name, source(tmp_path / name, labels), truth)
        shas.append(weights_sha(result))
        assert json.loads((result.folder / "artifacts" / "active.json").read_text())["pool_by_client"] == {"0": 42}
    assert shas[0] == shas[1]


def test_a_row_with_no_class_at_all_is_refused_with_its_place(tmp_path):
    words = source(tmp_path, np.where(np.arange(60) == 7, -1, Y))
    with pytest.raises(
        DataError, match=r"train_labels\[7\]: label -1 stands beside ids 0 to 2 as a mark for 'no label'"
    ):
        launch_in(tmp_path, *words, "strategy.active.oracle={name: worklist}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_answers_that_come_late_are_not_used_and_their_rows_may_be_asked_again(tmp_path):
    late = {}

    def readers(cycle, items, own):
        found = truth(cycle, items, own)
        if cycle == 1:
            late.update(dict(list(found.items())[4:]))  # two of six do not come back in time
            return dict(list(found.items())[:4])
        if cycle == 2:  # now they do, beside the file that was imported
            text = "\n".join(["id,label", *(f"{key},{label}" for key, label in late.items())])
            (own / "cycle-01" / "returned" / "bert.csv").write_text(text)
        return found

    result, own = asked_people(tmp_path, source(tmp_path, Y), readers, partial="accept")
    table = json.loads((result.folder / "artifacts" / "active.json").read_text())
    assert np.sum(table["labelled_by_cycle"], axis=1).tolist() == [4, 10, 16]
    assert table["pool_by_client"] == {"0": 44}
    imported = json.loads((own / "imported-01.json").read_text())
    assert sorted(imported["missing"]) == sorted(late)
    asked = [item.row for item in read_map(own)]
    dropped = {item.row for item in read_map(own) if item.id in late}
    assert set(np.unique(asked)[np.unique(asked, return_counts=True)[1] > 1]) <= dropped  # only they may come again


def test_rows_are_handed_to_the_oracle_in_the_order_wanted(tmp_path, monkeypatch):
    from fedimb.annotation.simulated import SimulatedOracle

    handed, wanted = [], []
    ask, select = SimulatedOracle.ask, type(ActiveClient(query={"name": "entropy"}).rule).select

    def watch_ask(self, rows, cycle, predictions=None):
        handed.append(rows.tolist())
        ask(self, rows, cycle, predictions)

    def watch_select(self, question):
        chosen = select(self, question)
        wanted.append(chosen.tolist())
        return chosen

    monkeypatch.setattr(SimulatedOracle, "ask", watch_ask)
    monkeypatch.setattr("fedimb.selection.queries.base.QueryRule.select", watch_select)
    launch_in(tmp_path, *source(tmp_path, Y))
    pool = np.arange(60)
    for before, rows, positions in zip(handed, handed[1:], wanted, strict=False):
        pool = np.setdiff1d(pool, before)
        assert rows == pool[positions].tolist()
    assert any(rows != sorted(rows) for rows in handed[1:])
