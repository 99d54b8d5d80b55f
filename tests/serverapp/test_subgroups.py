"""Runs scored by subgroup: on the server's rows, on the clients', in the clear and under masks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import launch_in

from fedimb.data.federation import Federation
from fedimb.errors import ConfigError, DataError
from fedimb.report.panel import panels
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import Present, read_identity
from fedimb.rundir.stored import read_config

AGE = "{column: age, bands: [40, 60]}"
NONE = ("data.test={name: none}", "data.validation=0.4")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = np.random.default_rng(3), tmp_path_factory.mktemp("table") / "people.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["a", "b", "sex", "age", "hospital", "patient", "label"])
        for i in range(480):
            sex = ["f", "m", ""][rng.choice(3, p=[0.5, 0.44, 0.06])]
            label = rng.choice(3, p=[0.6, 0.3, 0.1])
            a, b = rng.normal(size=2) + label
            out.writerow([a, b, sex, rng.integers(20, 90), "AB"[rng.integers(2)], i // 2, label])
    return path


def run(folder: Path, table: Path, *words: str, subgroups: str = f"[sex,{AGE}]"):
    source = ["data=tabular_csv", f"data.source.files={table}", "data.source.target=label", "data.source.drop=[sex]"]
    source += ["data.source.site_column=hospital", "data.source.patient=patient", "data.source.classes=null"]
    fixed = ["model=logistic", "engine=inline", "rounds=1", "data.n_max=null", "clients.count=2"]
    return launch_in(folder, *source, *fixed, f"data.subgroups={subgroups}", *words)


def tables_of(result) -> dict[tuple[str, str], dict]:
    tables = result.subgroups["rows"][result.rows[0].label]
    return {(table["name"], group["group"]): group for table in tables for group in table["groups"]}


def test_the_servers_rows_by_group(tmp_path: Path, table: Path) -> None:
    result = run(tmp_path, table, "data.test={name: stratified, fraction: 0.5}", subgroups=f"[sex,{AGE},site]")
    federation, found = Federation.load(result.folder), tables_of(result)
    rows = list(csv.DictReader(table.open()))
    chosen = [rows[i] for i in federation.test]
    assert "a" in federation.store.columns.names
    assert "sex" not in federation.store.columns.names  # a group, not a feature
    for name in ("f", "m", "missing"):
        held = [sum(r["sex"] == name.replace("missing", "") and r["label"] == c for r in chosen) for c in "012"]
        assert found["sex", name]["rows"] == held
    assert sum(found["site", site]["shown_rows"] for site in "AB") == len(chosen)
    assert found["age", "60 and over"]["shown_rows"] == sum(int(r["age"]) >= 60 for r in chosen)
    config = read_config(RunFolder(result.folder))
    assert Present().differences(config, read_identity(result.folder)) == []  # read again, with the same columns
    final = result.rows[0].final
    assert final["subgroup/sex/00_f/macro_recall"] == found["sex", "f"]["macro_recall"]
    assert final["worst_subgroup_gap"] == min(g["gap"] for g in found.values() if g["gap"] is not None)
    assert "worst subgroup: " in panels(result)
    assert "worst site: " in panels(result)


def test_the_clients_rows_in_the_clear_and_under_masks_give_the_same(tmp_path: Path, table: Path) -> None:
    clear = run(tmp_path / "clear", table, *NONE)
    masked = run(tmp_path / "masked", table, *NONE, "evaluation.secure=true")
    assert clear.subgroups == masked.subgroups
    matrix = clear.rows[0].confusion
    for attribute in ("sex", "age"):
        groups = [group for (name, _), group in tables_of(clear).items() if name == attribute]
        np.testing.assert_array_equal(np.sum([g["rows"] for g in groups], axis=0), matrix.sum(axis=1))


def test_with_a_floor_small_cells_and_single_sites_figures_are_gone(tmp_path: Path, table: Path) -> None:
    shown = run(tmp_path / "all", table, *NONE)
    hidden = run(tmp_path / "floor", table, *NONE, "evaluation.subgroup_floor=3", subgroups=f"[sex,{AGE},site]")
    before, after = tables_of(shown), tables_of(hidden)
    seen = [n for group in after.values() for n in group["rows"] if n]
    assert seen
    assert min(seen) >= 3
    assert any(None in group["rows"] for group in after.values())
    for key, group in before.items():
        assert all(n is None or n == own for n, own in zip(after[key]["rows"], group["rows"], strict=True))
    lost = hidden.subgroups["hidden_of_sites"]
    assert lost
    for site in hidden.without_site.get(hidden.rows[0].label, {}).values():
        assert site["rows"] < 90  # not all rows of a client
    lines = [json.loads(line)["metrics"] for line in (hidden.folder / "metrics.jsonl").read_text().splitlines()]
    assert not any("client/worst_minority_recall" in line for line in lines)
    assert any("client/macro_recall" in line for line in lines)


def test_a_client_that_withholds_or_invents_its_counts_is_named(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedimb.clientapp import scores

    original = scores._by_subgroup

    def invents(context, *rest):
        found = original(context, *rest)
        if context.client == 1:
            found["rows"] = np.roll(found["rows"], 1, axis=1)
        return found

    monkeypatch.setattr(scores, "_by_subgroup", invents)
    result = run(tmp_path, table, *NONE)
    assert result.subgroups["without"] == ["client 1"]
    assert "Not counted: client 1" in panels(result)
    rows = [g["shown_rows"] for (name, _), g in tables_of(result).items() if name == "sex"]
    assert sum(rows) < result.rows[0].confusion.sum()


@pytest.mark.parametrize(
    ("subgroups", "words", "said"),
    [
        ("[sx]", (), "'sx', which is not a column of .*Did you mean 'sex'"),
        ("[{column: sex, bands: [40]}]", (), "'sex' holds '[fm]', which is not a number"),
        ("[{column: age, band: [40]}]", (), "no setting 'band' of a subgroup. Did you mean 'bands'"),
        ("[age,age]", (), "names 'age' twice"),
        ("[a]", (), "480 groups, more than 100: give bands"),
        ("[site]", (*NONE, "evaluation.secure=true"), "'site' and evaluation.secure=true"),
    ],
)
def test_a_wrong_entry_is_one_line(tmp_path: Path, table: Path, subgroups: str, words: tuple, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        run(tmp_path, table, *words, subgroups=subgroups)
    assert not (tmp_path / "runs").exists()


def test_a_source_without_columns_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'sex', but source 'digits' has no columns"):
        launch_in(tmp_path, "data=digits", "engine=inline", "data.subgroups=[sex]")
