"""`fedimb deploy plan`: from overrides to the page, and what is refused on the way."""

import os

import pytest
from study_plans import keys_of, run_config, sites_of

from fedimb.cli.main import main
from fedimb.deploy.coordinator.drafting import describe_data, end_of_day, parse_vary
from fedimb.deploy.joining import JoinFile, write_join
from fedimb.deploy.study_plan.plan import mismatch, read_plan
from fedimb.deploy.study_plan.ranges import Range
from fedimb.errors import ConfigError

WORDS = ["--purpose", "Herzen", "--contact", "Dr. Müller", "--expires", "2126-12-31", "--tags", "heart,2026"]
SHAPE = ["--classes", "no,yes", "--minority", "yes", "--input-shape", "13"]
SITES_SCORE = ["data.test={name: none}", "data.validation=0.2"]


@pytest.fixture
def deployment(tmp_path):
    (tmp_path / "deploy.yaml").write_text("name: heart\nhost: localhost\n")
    (tmp_path / "sites").mkdir()
    for site, key in sites_of(10).items():
        join = JoinFile(site=site, public_key=key, fedimb="0.1.0", created="2026-01-01")
        write_join(tmp_path / "sites" / f"{site}.join.json", join)
    return tmp_path


def plan(deployment, *words):
    return main(["deploy", "plan", "--deployment", str(deployment), *WORDS, *words])


def test_a_plan_without_data_at_the_coordinator(deployment, capsys):
    words = [*SITES_SCORE, "strategy=scope", "rounds=9", "--vary", "rounds=1..20", "--vary", "seed"]
    assert plan(deployment, "model=logistic", *words, *SHAPE) == 0
    [folder] = (deployment / "plans").iterdir()
    made = read_plan((folder / "plan.json").read_text(encoding="utf-8"))
    assert folder.name == made.sha
    assert (made.deployment, made.purpose, made.contacts) == ("heart", "Herzen", ["Dr. Müller"])
    assert (made.tags, made.classes, made.minority) == (["heart", "2026"], ["no", "yes"], ["yes"])
    assert made.expires == "2126-12-31T23:59:59Z"
    assert made.vary == {"rounds": Range(low=1, high=20), "seed": Range()}
    assert made.sizes.parameters == 2 * (13 + 1)
    assert mismatch(made) is None
    assert {site.name: site.key for site in made.sites} == sites_of(10)
    assert made.coordinator not in sites_of(10).values()
    assert made.sha in capsys.readouterr().out
    assert "Herzen" in (folder / "plan.html").read_text(encoding="utf-8")
    assert "Herzen" in (folder / "plan.md").read_text(encoding="utf-8")


def test_a_plan_without_subgroups_and_one_that_varies_what_another_setting_switches_on(deployment):
    words = ["local.optimizer=adam", "local.momentum=0.5", "--vary", "local.optimizer=sgd,adam"]
    assert plan(deployment, "model=logistic", *SITES_SCORE, *words, "--vary", "local.momentum=0.5,0.9", *SHAPE) == 0
    assert plan(deployment, "model=logistic", *SITES_SCORE, "data.subgroups=[]", *SHAPE) == 0


def test_classes_minority_and_shape_are_read_off_the_data():
    names, rare, shape = describe_data(run_config("data.n_max=60"), None, None, None)
    assert names == [str(digit) for digit in range(10)]
    assert len(rare) == 3
    assert shape == [1, 8, 8]
    assert describe_data(run_config(), "a,b", "b", "4") == (["a", "b"], ["b"], [4])


def test_a_minority_without_rows_in_the_coordinators_data_is_refused(tmp_path):
    lines = "".join(f"{i / 7},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"v,label\n{lines}")
    words = ["data=tabular_csv", f"data.source.files={tmp_path / 't.csv'}", "data.source.target=label"]
    words += ["data.source.classes=[a,b,c]", "data.source.indicators=[]", "partition=iid"]
    with pytest.raises(ConfigError, match="--minority b,c: the configured data have no training row of c"):
        describe_data(run_config(*words), None, "b,c", None)
    assert describe_data(run_config(*words), None, "b", None)[1] == ["b"]


@pytest.mark.skipif(not os.environ.get("FEDIMB_DATA_DIR"), reason="needs FEDIMB_DATA_DIR")
def test_a_plan_for_two_of_the_four_hospitals_whose_data_the_coordinator_has(deployment, capsys):
    words = ["data=heart_four", "partition=by_column", "model=logistic", *SITES_SCORE]
    assert plan(deployment, *words, "clients.count=2", "--sites", "va,linz") == 0
    assert "sites     linz, va\n" in capsys.readouterr().out
    [folder] = (deployment / "plans").iterdir()
    made = read_plan((folder / "plan.json").read_text(encoding="utf-8"))
    assert ([site.name for site in made.sites], made.classes) == (["linz", "va"], ["healthy", "disease"])
    assert plan(deployment, *words, "clients.count=4", "--sites", "va,linz") == 2
    assert "lists 2 sites (linz, va): set clients.count=2, or name the sites with --sites" in capsys.readouterr().err


def test_one_key_for_two_sites_is_refused(deployment, capsys):
    join = JoinFile(site="kiel", public_key=keys_of("va")[1], fedimb="0.1.0", created="2026-01-01")
    write_join(deployment / "sites" / "kiel.join.json", join)
    assert plan(deployment, "model=logistic", *SITES_SCORE, *SHAPE) == 2
    assert "kiel sent the key of va" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rouns=3", *SHAPE], "rouns"),
        (["model=logistic", *SHAPE], "does not work in a deployment"),
        (["model=logistic", *SITES_SCORE, "strategy=fedssg", *SHAPE], "rows at the server"),
        (["--vary", "rounds=9..3", *SHAPE], "smaller number first"),
        (["--vary", "rounds", *SHAPE], "rounds=1..200"),
        (
            ["model=logistic", *SITES_SCORE, "strategy=oneround", "--vary", "rounds=1..50", *SHAPE],
            "--vary rounds: rounds=50 changes nothing",
        ),
        (["model=logistic", *SITES_SCORE, "evaluation.subgroup_floor=10", *SHAPE], "subgroup_floor=10 changes nothing"),
        (["--vary", "seed", "--vary", "seed=1,2", *SHAPE], "given twice"),
        (["--input-shape", "13x2", "--classes", "a,b", "--minority", "b"], "13 or 3,28,28"),
        (["model={_target_: fedimb.models.logistic.Logistic}", "engine=inline", *SHAPE], "is an import path"),
    ],
)
def test_what_is_refused_leaves_no_plan(deployment, capsys, words, says):
    assert plan(deployment, *words) == 2
    assert says in capsys.readouterr().err
    assert not (deployment / "plans").exists()


def test_ranges_as_typed():
    assert parse_vary(["a.b=0.5..1e1", "c=1,2.5,x,true", "d", "e=-3..4"]) == {
        "a.b": Range(low=0.5, high=10.0),
        "c": Range(among=[1, 2.5, "x", True]),
        "d": Range(),
        "e": Range(low=-3, high=4),
    }
    with pytest.raises(ConfigError, match="KEY="):
        parse_vary(["a="])


@pytest.mark.parametrize("day", ["31.12.2026", "2026-13-01", "2026-02-30", "tomorrow"])
def test_days_that_are_none(day):
    with pytest.raises(ConfigError):
        end_of_day(day)
