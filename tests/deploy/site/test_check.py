"""The node check: each line can say ok and what is wrong, and data that do not fit the plan are refused."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from study_plans import keys_of

import fedimb
from fedimb.cli.main import main
from fedimb.data.paths import VARIABLE
from fedimb.deploy.files import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import make_ca
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site import check
from fedimb.deploy.site.check import all_pass, node_checks, versions
from fedimb.deploy.site.data_checks import data_checks

HEART = {
    name: Path(__file__).parents[3] / "configs" / "data" / f"{name}.yaml" for name in ("heart_four", "heart_severe")
}
needs_heart = pytest.mark.skipif(not os.environ.get(VARIABLE), reason="needs FEDIMB_DATA_DIR")


@pytest.fixture(scope="module")
def authorities():
    """The coordinator's, and a stranger's."""
    return make_ca("heart"), make_ca("other")


@pytest.fixture
def home(tmp_path: Path, authorities) -> NodeHome:
    root = tmp_path / "hungary"
    root.mkdir(mode=0o700)
    (root / "node.yaml").write_text("site: hungary\n")
    write_private(root / "key", keys_of("hungary")[0])
    (root / "ca.crt").write_bytes(authorities[0][1])
    return NodeHome.open(root)


@pytest.fixture(scope="module")
def plans():
    """Plans of the two studies of the heart data: disease, and severe disease."""
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.deploy.study_plan.plan import make_plan

    sites = {name: keys_of(name)[1] for name in ("cleveland", "hungary", "va")}
    who = (keys_of("coordinator")[1], sites)

    def made(data, classes):
        config = validate(compose([f"data={data}", "model=logistic", "partition=by_column", "clients.count=3"]))
        texts = ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z")
        return make_plan("heart", config, "test", ["a@b"], *texts, {}, ["heart"], classes, classes[-1:], [28], *who)

    four, severe = ["healthy", "disease"], ["not_severe", "severe"]
    return {"heart_four": made("heart_four", four), "heart_severe": made("heart_severe", severe)}


def levels(checks):
    return [(one.level, one.found) for one in checks if one.level != "ok"]


def table(folder, rows=("50,ill", "60,well", "61,well")):
    path = folder / "t.csv"
    path.write_text("\n".join(["age,label", *rows]) + "\n")
    return path


def test_nothing_registered(home):
    ((level, found),) = levels(data_checks(home, None))
    assert (level, found) == ("fail", "nothing is registered")


def test_what_is_wrong_with_the_records_is_said(home, tmp_path):
    rows = ["50,ill", "50,ill", ",well", "x,well"]
    words = ["target=label", "on_bad=skip"]
    register_data(home, str(table(tmp_path, rows)), "t", ["t"], settings=words)
    home.config.__dict__["sharing"] = home.config.sharing.model_copy(update={"min_patients": 2})
    assert levels(data_checks(home, None)) == [
        ("warn", "unreadable rows, left out: 1"),
        ("warn", "rows with the same values and label as another: 1"),
        ("warn", "fewer than 2 patients of class well: statistics about them do not leave"),
    ]


def test_changed_data_fail(home, tmp_path):
    path = table(tmp_path)
    register_data(home, str(path), "t", ["t"], settings=["target=label"])
    assert levels(data_checks(home, None)) == []
    table(tmp_path, ["50,ill", "60,ill", "61,well"])
    ((level, found),) = levels(data_checks(home, None))
    assert level == "fail"
    assert "t.csv row 3 changed" in found


@needs_heart
def test_data_that_fit_the_plan(home, plans):
    path = "heart-disease/processed.hungarian.data"
    register_data(home, path, "heart", ["heart"], like=str(HEART["heart_four"]))
    plan = plans["heart_four"]
    assert all_pass(data_checks(home, plan))
    found = [one.found for one in data_checks(home, plan.model_copy(update={"tags": ["lungs"]}))]
    assert "no data set has the tags lungs" in found[0]


def test_rows_with_several_labels_never_train(home, plans, tmp_path):
    """Also where the classes and the shape of rows are the plan's."""
    (tmp_path / "t.csv").write_text("age,healthy,disease\n50,0,1\n60,1,\n61,1,1\n70,,0\n")
    source = {"name": "tabular_csv", "files": str(tmp_path / "t.csv"), "target": ["healthy", "disease"]}
    group = {"source": source | {"cell_map": {"": "unknown"}}, "test": {"name": "none"}}
    (tmp_path / "data.yaml").write_text(json.dumps(group))
    register_data(home, str(tmp_path / "t.csv"), "heart", ["heart"], like=str(tmp_path / "data.yaml"))
    plan = plans["heart_four"].model_copy(update={"input_shape": [1]})
    found = next(one for one in data_checks(home, plan) if one.level == "fail")
    assert found.found.startswith("rows have several labels each, in a study one: ")
    assert found.remedy.startswith("register the data with one label per row")


@needs_heart
def test_labels_that_cannot_express_the_classes_never_train(home, plans):
    path, plan = "heart-disease/processed.hungarian.data", plans["heart_severe"]
    register_data(home, path, "heart", ["heart"], like=str(HEART["heart_four"]))
    assert [found for level, found in levels(data_checks(home, plan)) if level == "fail"] == [
        "classes healthy, disease, the plan's are not_severe, severe",
        "thresholds is [1], in the plan [3.0]",
    ]


@needs_heart
def test_a_version_that_cannot_record_a_class_is_refused(home, plans, tmp_path):
    """As registered by hand, or by a release that did not ask: the plan's class list is asked again."""
    path = "heart-disease/processed.va.data"
    version = register_data(home, path, "heart", ["heart"], like=str(HEART["heart_severe"]))
    assert all_pass(data_checks(home, plans["heart_severe"]))
    about = json.loads((version.folder / "version.json").read_text())
    about["facts"]["recordable"] = ["not_severe"]
    (version.folder / "version.json").write_text(json.dumps(about))
    [found] = [found for level, found in levels(data_checks(home, plans["heart_severe"])) if level == "fail"]
    assert "cannot express class severe" in found


@needs_heart
def test_other_columns_and_another_meaning(home, plans, tmp_path):
    text = HEART["heart_four"].read_text()
    for change, says in (
        (("indicators: [trestbps, chol,", "indicators: [trestbps,"), "rows are 27"),
        (("thresholds: [1]", "thresholds: [2]"), "thresholds is [2], in the plan [1.0]"),
    ):
        assert change[0] in text
        (tmp_path / "other.yaml").write_text(text.replace(*change))
        path = "heart-disease/processed.va.data"
        register_data(home, path, "heart", ["heart"], like=str(tmp_path / "other.yaml"))
        found = levels(data_checks(home, plans["heart_four"]))
        assert any(level == "fail" and says in line for level, line in found), found


@needs_heart
def test_a_site_without_a_row_of_what_the_study_is_about_says_so(home, plans, tmp_path):
    lines = (Path(os.environ[VARIABLE]) / "heart-disease/processed.va.data").read_text().splitlines()
    (tmp_path / "va.data").write_text("\n".join(line for line in lines if line.endswith(",0")) + "\n")
    text = (
        Path(HEART["heart_four"])
        .read_text()
        .replace("source:\n", "source:\n  label_values: {hungary: [0, 1, 2, 3, 4]}\n")
    )
    (tmp_path / "like.yaml").write_text(text.replace("accept: []", "accept: [one_class_sites]"))
    register_data(home, str(tmp_path / "va.data"), "heart", ["heart"], like=str(tmp_path / "like.yaml"))
    found = levels(data_checks(home, plans["heart_four"]))
    assert ("warn", "no row of disease, which the study is about (disease)") in found
    assert all_pass(data_checks(home, plans["heart_four"]))  # others may have some


def test_versions(plans, monkeypatch):
    plan = plans["heart_four"]
    monkeypatch.setattr(check, "packages", lambda: iter(()))
    assert levels(versions(plan)) == []
    release = plan.release

    def levels_with(**change):
        return levels(versions(plan.model_copy(update=change)))

    ((level, found),) = levels_with(release=release.model_copy(update={"fedimb": "0.9.7"}))
    assert (level, "0.9.7" in found, "contracts are the same" in found) == ("warn", True, True)
    for other in ({"fedimb": "7.0.0"}, {"bundle": "0" * 64}):
        assert levels_with(release=release.model_copy(update=other))[0][0] == "fail"
    ((level, found),) = levels_with(leaves=plan.leaves[1:])
    assert level == "fail"
    assert "installed contracts" in found
    assert levels_with(expires="2026-01-02T00:00:00Z") == [("fail", "it expired on 2026-01-02T00:00:00Z")]


def test_key_and_authority(home, monkeypatch):
    assert check.key(home).level == "ok"
    home.file("key").chmod(0o644)
    assert "chmod 600" in check.key(home).found
    home.file("key").unlink()
    assert check.key(home).level == "fail"
    assert check.authority(home).level == "ok"
    for days, level in ((20, "warn"), (-2, "fail")):
        home.file("ca.crt").write_bytes(make_ca("x", days=days)[1]) if days > 0 else None
        if days < 0:
            past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
            monkeypatch.setattr(check, "expires", lambda pem, past=past: past)
        assert check.authority(home).level == level


def test_a_plan_for_other_sites_or_another_key(home, plans):
    plan = plans["heart_four"]
    assert check.membership(home, plan).found == "lists this site as client 1, with its key"
    others = plan.model_copy(update={"sites": plan.sites[::2]})
    assert (check.membership(home, others).level, "not for hungary" in check.membership(home, others).found) == (
        "fail",
        True,
    )
    write_private(home.file("key"), keys_of("another")[0])
    assert "but its key is SHA256:" in check.membership(home, plan).found


def test_times_that_are_none_fail_the_check(home, capsys):
    """At `node check`, and where a node starts: not on the first day that they would matter."""
    for line in ("absent: [tomorrow]", "limits: {hours: 25:00-26:00}", "sharing: {}\nsharing: {individual: true}"):
        home.file("node.yaml").write_text(f"site: hungary\n{line}\n")
        for words in (["check"], ["run", "--once"]):
            assert main(["node", *words, "--home", str(home.root)]) == 2
            said = capsys.readouterr().err
            assert "node.yaml" in said
            assert any(text in said for text in ("not a day or range", "not a range of times", "given twice"))


def test_disk(home):
    assert check.space(home).level == "ok"
    home.config.__dict__["limits"] = home.config.limits.model_copy(update={"disk_gb": 1e-9})
    assert check.space(home).level == "fail"


def test_without_a_plan_nothing_heavy_is_loaded(home):
    code = (
        "import sys; from fedimb.cli import main; main(['node', 'check', '--home', sys.argv[1]]);"
        "sys.exit(','.join(n for n in ('torch', 'ray', 'mlflow', 'hydra', 'flwr') if n in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home.root)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"fedimb {fedimb.__version__}" in done.stdout


@needs_heart
def test_all_of_it(home, plans, monkeypatch):
    monkeypatch.setattr(check, "packages", lambda: iter(()))
    monkeypatch.setattr(check, "reach", lambda home, timeout_s: iter([check.Check("ok", "clock", f"{timeout_s}")]))
    register_data(home, "heart-disease/processed.va.data", "heart", ["heart"], like=str(HEART["heart_four"]))
    found = list(node_checks(home, plans["heart_four"], timeout_s=5))
    assert all_pass(found)
    assert {one.name for one in found} == {"data heart", "versions", "plan", "key", "ca.crt", "disk", "clock"}
    assert check.report(home, found)["fit"] is True
    home.file("key").chmod(0o644)
    assert not all_pass(node_checks(home, plans["heart_four"]))
