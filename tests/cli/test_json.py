"""``--json``: every verb has it, documents it, and prints one JSON object and nothing else, also if it fails.

A new verb fails the first tests until its handler returns an output, docs/json.md lists it, and a story here runs it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from coordinator import make_deployment
from region_trees import make_tree
from small_runs import SMALL
from study_plans import node_home, plan_of, run_config
from tiny_images import image

from fedimb.cli import json_mode, json_schema
from fedimb.cli.main import every_leaf, main
from fedimb.cli.output.base import Failure
from fedimb.cli.output.runs import RunsListing
from fedimb.deploy.site.approvals import receive_plan
from fedimb.generation.outbox import Outbox
from fedimb.privacy.audit.types import Audit, Batch, Verdict

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "json.schema.json").read_text(encoding="utf-8"))

STORIES = {
    "runs": {
        "run", "show", "track sync", "runs list", "runs rm", "runs gc", "predict", "register", "report", "compare",
        "sweep", "tune", "study register", "explain",
    },
    "parts": {
        "list", "data describe", "data check", "data import", "data crops", "data split", "doctor", "bench", "new",
    },
    "people": {
        "outbox list", "outbox show", "outbox release", "outbox reject", "outbox recall", "worklist status",
        "worklist check",
    },
    "site": {
        "node init", "node check", "node status", "node rotate", "node inbox", "node approve", "node reject",
        "node audit verify", "node audit export", "node data add", "node data list", "node data verify",
        "node data prove", "node data verify-proof", "node data withdraw",
        "node ledger",
    },
    "coordinator": {
        "deploy init", "deploy status", "deploy add-site", "deploy remove-site", "deploy rotate", "deploy renew",
        "deploy plan", "deploy standby", "deploy take-over",
    },
    "region": {"region plan"},
    # what these return is checked by its type alone
    "minutes": {"demo", "deploy run", "deploy demo", "deploy bundle", "deploy dossier", "node papers"},
}  # fmt: skip
"""What each test below runs."""


def leaves():
    return dict(every_leaf())


def test_every_verb_has_json_and_says_what_it_prints():
    found = leaves()
    assert set(json_mode.SILENT) <= set(found)
    for path, leaf in found.items():
        assert ("--json" in leaf._option_string_actions) == (path not in json_mode.SILENT), path
        if path not in json_mode.SILENT:
            assert json_schema.outputs_of(leaf), path


def test_every_verb_is_run_by_a_test_here():
    run = [path for paths in STORIES.values() for path in paths]
    assert sorted(run) == sorted(set(leaves()) - set(json_mode.SILENT))


def test_a_verb_whose_handler_returns_a_number_is_found():
    def handler(args: object) -> int:
        return 0

    leaf = next(iter(leaves().values()))
    leaf.set_defaults(handler=handler)
    with pytest.raises(TypeError, match="return outputs of"):
        json_schema.outputs_of(leaf)


def test_schema_and_page_are_up_to_date():
    """After a change: ``python -m fedimb.cli.json_schema docs``."""
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    assert json_schema.schema() == SCHEMA
    assert page == json_schema.page(page)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.fixture
def said(capsys, schema):
    """Runs a command with ``--json`` and returns the one object it printed, checked against the published schema."""
    seen = set()

    def run(*words, code=0):
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        verb = found["verb"]
        about = schema["properties"][verb] | {"$defs": schema["$defs"]}
        jsonschema.Draft202012Validator(about).validate(found)
        assert found["exit_code"] == code
        seen.add(verb)
        return found

    run.seen = seen
    return run


def test_runs(said, copy, home, template, capsys):
    folder, name = copy(), "fedavg"
    (home / "runs" / "mlflow.db").write_bytes(template.read_bytes())
    finished = said("run", "--resume", name)
    assert finished["folder"] == str(folder)
    assert [row["label"] for row in finished["rows"]] == ["fedavg", "la_post"]
    assert finished["meaning"].startswith("In the final round, fedavg found")
    shown = said("show", name)
    assert {k: v for k, v in shown.items() if k != "verb"} == {k: v for k, v in finished.items() if k != "verb"}
    assert said("run", *SMALL, "--show")["configuration"]["rounds"] == 3
    (listed,) = said("runs", "list")["runs"]
    assert (listed["status"], listed["folder"]) == ("finished", str(folder))
    predicted = said("predict", name, "--out", "test.csv")
    assert predicted["scores"]["macro_recall"] == pytest.approx(finished["rows"][0]["final"]["macro_recall"])
    assert Path(predicted["out"]).is_file()
    pytest.importorskip("captum")
    quick = ("integrated_gradients.randomized=0", "integrated_gradients.floor=3", "integrated_gradients.rows=3")
    (explained,) = said("explain", name, "integrated_gradients", *quick)["explanations"]
    assert explained["sanity_passed"] is None
    assert Path(explained["file"]).is_file()
    assert said("report", name)["report"] == str(folder / "report.html")
    assert said("track", "sync", name)["runs"].keys() == {"fedavg", "la_post"}
    assert said("register", name, "digits")["version"] == "1"
    compared = said("compare", "runs/default", "--no-report")
    assert [run["label"] for run in compared["runs"]] == ["fedavg", "la_post"]
    assert compared["meaning"].startswith("On 1 seed,")
    assert len(said("sweep", "seed=0,1", *SMALL, "--dry-run")["runs"]) == 2
    assert said("tune", "local.lr=0.1,0.2", *SMALL, "--dry-run")["rows"] == {
        "tuned": [["local.lr=0.1"], ["local.lr=0.2"]]
    }
    claims = {"contrasts": [["focal", "fedavg"]], "margin_reason": "one row of a class of 60"}
    few = {"one": ["data.n_max=60"], "two": ["data.n_max=80"]}
    tree = {"base": SMALL, "references": ["fedavg"], "rows": {"focal": ["loss=focal"]}, "data_sets": few}
    (home / "study.yaml").write_text(json.dumps(tree | {"registration": claims}))
    registered = said("study", "register", "study.yaml")
    assert (registered["rows"], registered["data_sets"]) == (["fedavg", "focal"], ["one", "two"])
    assert Path(registered["file"]).is_file()
    unfinished = copy("la_post-s0-00000000", status="failed")
    assert said("show", "la_post-s0")["status"] == "failed"
    assert [gone["path"] for gone in said("runs", "rm", "la_post-s0", "--yes")["deleted"]] == [str(unfinished)]
    said("runs", "gc", "--yes")  # what other tests left in the cache that they share
    assert said("runs", "gc", "--yes")["freed_bytes"] == 0
    assert said.seen == STORIES["runs"]


def boxed(home):
    """COCO's JSON of one box in one picture, beside it."""
    (home / "a.png").write_bytes(image(shape=(9, 9, 3)))
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 9, 9]}],
    }
    (home / "boxes.json").write_text(json.dumps(tree))
    return "boxes.json"


def test_parts(said, home):
    parts = {(part["kind"], part["name"]): part for part in said("list")["parts"]}
    assert {"name", "default", "about"} == parts["strategy", "scope"]["settings"][0].keys()
    assert [part["name"] for part in said("list", "losses", "ce")["parts"]] == ["ce"]
    assert {pair["allowed"] for pair in said("list", "combinations")["pairs"]} == {True, False}
    described = said("data", "describe", *SMALL)
    saved = said("data", "split", *SMALL, "--to", "split.csv")
    assert saved["sides"]["test"] == sum(described["test"])
    assert np.sum(described["counts"], axis=0).tolist() == np.array(described["counts"]).sum(0).tolist()
    assert len(described["counts"]) == 5
    (home / "table.csv").write_text("a,dx\n1,x\n2,y\n")
    assert said("data", "check", "table.csv", "target=dx")["counts"] == [1, 1]
    imported = said("data", "import", "table.csv", "target=dx")
    assert (imported["counts"], imported["file"]) == ([1, 1], str(home / "data/table.yaml"))
    assert said("data", "crops", boxed(home), "--images", ".", "--to", "crops")["counts"] == [1]
    assert {check["level"] for check in said("doctor")["checks"]} <= {"ok", "warn"}
    assert {case["name"] for case in said("bench", "--list")["cases"]} >= {"table", "noop"}
    assert "pyproject.toml" in said("new", "loss", "mine")["files"]
    assert said.seen == STORIES["parts"]


def test_people(said, home):
    audit = Audit({0: Verdict("pass", (), {"power": 0.9}), 1: Verdict("undecidable", ("few",), {"power": np.nan})})
    x = np.random.default_rng(0).random((4, 2)).astype(np.float32)
    box = Outbox(home / "sites" / "a" / "outbox")
    id = box.put(Batch(x, np.arange(4) % 2), audit, {"class_names": ["naevus", "melanoma"]}, Batch(x, np.arange(4) % 2))
    assert said("outbox", "list")["batches"][0]["waiting"] == 1
    shown = said("outbox", "show", id)
    assert [(one["name"], one["figures"]["power"]) for one in shown["classes"]] == [("naevus", 0.9), ("melanoma", None)]
    assert said("outbox", "release", id, "--all")["classes"] == [0]
    assert said("outbox", "recall", id, "--reason", "x")["decision"] == "recalled"
    other = Outbox(home / "sites" / "b" / "outbox").put(Batch(x, np.zeros(4, int)), audit, {"class_names": ["n", "m"]},
                                                          Batch(x, np.zeros(4, int)))  # fmt: skip
    assert said("outbox", "reject", other, "--all", "--reason", "x")["decision"] == "rejected"
    assert said("worklist", "status")["worklists"] == []
    assert said("worklist", "check", "none.csv", code=2)["kind"] in ("ConfigError", "DataError")
    assert said.seen == STORIES["people"]


@pytest.mark.slow
def test_site(said, home, monkeypatch):
    deployment = make_deployment(home / "study")
    ca = deployment.file("ca.crt")
    digest = said("deploy", "status", "--deployment", deployment.root, code=1)["fingerprint"]
    said.seen.clear()
    words = ["--host", "localhost", "--port", "9443", "--ca", ca, "--fingerprint", digest]
    made = said("node", "init", "st-anna", *words)
    assert Path(made["join_file"]).is_file()
    assert said("node", "rotate", "--home", "st-anna")["key_fingerprint"] != made["key_fingerprint"]
    node, plan = node_home(home / "node"), plan_of(run_config())
    receive_plan(node, plan.to_json())
    monkeypatch.setenv("FEDIMB_NODE_HOME", str(node.root))
    item = said("node", "inbox")["items"][0]["id"]
    assert said("node", "inbox", item)["sha"] == plan.sha
    assert said("node", "approve", item)["decision"] == "approved"
    assert said("node", "reject", item, "--reason", "x")["decision"] == "rejected"
    assert said("node", "ledger")["data_sets"] == []  # of one with runs: tests/cli/node/test_ledger.py
    lines = said("node", "audit", "export")["lines"]
    assert said("node", "audit", "verify")["lines"] == len(lines) > 0
    (home / "heads.csv").write_text("pid,age,dx\n1,50,ill\n2,60,well\n2,61,well\n")
    add = [
        "node",
        "data",
        "add",
        "heads.csv",
        "--name",
        "heads",
        "--tags",
        "ct",
        "--patient-column",
        "pid",
        "target=dx",
    ]
    assert said(*add)["data_set"]["patients"] == 2
    assert said("node", "data", "list")["data_sets"][0]["name"] == "heads"
    assert said("node", "data", "verify")["data_sets"][0]["error"] == ""
    proof = said("node", "data", "prove", "heads", "2")["proof"]
    (home / "proof.json").write_text(json.dumps(proof))
    assert said("node", "data", "verify-proof", "proof.json")["root_compared"] is False
    (home / "ids.txt").write_text("1\n")
    assert said("node", "data", "withdraw", "heads", "--ids", "ids.txt")["records"] == 1
    assert said("node", "check", code=2)["fit"] is False
    assert (
        "has never run" in said("node", "status", code=2)["error"]
    )  # of one that ran: tests/deploy/site/test_status.py
    assert said.seen == STORIES["site"]


@pytest.mark.slow
def test_coordinator(said, home, monkeypatch):
    made = said("deploy", "init", "heart-study", "--host", "localhost")
    monkeypatch.chdir(made["folder"])
    words = ["--host", "localhost", "--port", made["port"], "--ca", "ca.crt", "--fingerprint", made["fingerprint"]]
    join = said("node", "init", "va", *words)["join_file"]
    assert said("deploy", "add-site", join)["change"] == "added"
    assert said("node", "rotate", "--home", "va")["site"] == "va"
    assert said("deploy", "rotate", "va", join)["servers_updated"] is False
    assert said("deploy", "status", code=1)["sites"][0]["state"] == "unknown while down"
    assert said("deploy", "renew")["valid_until"].endswith("Z")
    about = ["--purpose", "x", "--contact", "Dr. Anna Weiss, +49 30 1234", "--expires", "2126-12-31", "--tags", "heart"]
    facts = ["--classes", "ill,well", "--minority", "ill", "--input-shape", "13"]
    plan = said(
        "deploy", "plan", *SMALL, "clients.count=1", "data.test={name: none}", "data.validation=0.2", *about, *facts
    )
    assert (Path(plan["folder"]) / "plan.json").is_file()
    assert said("deploy", "standby", "--to", "../second")["runs"] == {}
    assert said("deploy", "take-over", "--deployment", "../second")["runs"] == []
    assert said("deploy", "remove-site", "va")["key_fingerprint"] is None
    assert said.seen == STORIES["coordinator"] | {"node init", "node rotate"}


@pytest.mark.slow
def test_region(said, tmp_path):
    tree = make_tree(tmp_path)
    region = tree.regions["sued"]
    places = ["--node", region.node.root, "--deployment", region.deployment.root]
    assert main(["region", "plan", "abc", *map(str, places)]) == 2  # it was not received
    receive_plan(region.node, tree.plan.to_json())
    made = said("region", "plan", tree.plan.sha[:8], *places)
    assert (Path(made["folder"]) / "plan.json").is_file()
    assert said.seen == STORIES["region"]


@pytest.mark.parametrize(
    ("words", "code", "kind", "message"),
    [
        (["show", "nothing"], 1, "FedimbError", "nothing is not a run folder"),
        (["run", "loss=fokal"], 2, "ConfigError", "fokal"),
        (["data", "check", "none.csv"], 2, "DataError", "none.csv"),
        (["run", "--resume", "x", "rounds=3"], 2, "ConfigError", "--resume takes no settings"),
    ],
)
def test_an_error_is_one_object_too_with_the_same_exit_code(words, code, kind, message, home, capsys):
    assert main(words) == code
    text = capsys.readouterr()
    assert text.out == ""
    assert main([*words, "--json"]) == code
    taken = capsys.readouterr()
    found = Failure.model_validate_json(taken.out)
    assert (found.exit_code, found.kind) == (code, kind)
    assert message in found.error
    assert taken.err == text.err  # for people


@pytest.mark.parametrize("words", [["run", "--fast"], ["runs", "lst"], ["predict", "x"], ["shwo", "x"]])
def test_a_command_line_that_cannot_be_read_is_one_object_too(words, home, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--json"])
    taken = capsys.readouterr()
    found = Failure.model_validate_json(taken.out)
    assert (found.kind, found.exit_code) == ("Usage", stop.value.code)
    assert found.error
    assert found.error in taken.err
    assert found.verb == words[0]


def test_a_bug_leaves_an_object_and_its_traceback(home, monkeypatch, capsys):
    from fedimb.cli import runs

    def broken(args: object) -> RunsListing:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(runs, "list_runs", broken)
    with pytest.raises(ZeroDivisionError):
        main(["runs", "list", "--json"])
    assert Failure.model_validate_json(capsys.readouterr().out).kind == "ZeroDivisionError"


def test_an_interruption_is_one_object_with_exit_code_130(home, monkeypatch, capsys):
    from fedimb.cli import runs

    def stopped(args: object) -> RunsListing:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "list_runs", stopped)
    assert main(["runs", "list", "--json"]) == 130
    assert Failure.model_validate_json(capsys.readouterr().out).kind == "Interrupted"


def test_what_libraries_and_children_print_goes_to_standard_error(home):
    text = """
import subprocess, sys
from fedimb.cli import main, runs
from fedimb.cli.output.runs import RunsListing

def chatty(args):
    print("a print")
    subprocess.run(["echo", "a child"], check=True)
    return RunsListing(runs=[])

runs.list_runs = chatty
sys.exit(main(["runs", "list", "--json"]))
"""
    env = os.environ | {"PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=env, timeout=120)
    assert json.loads(done.stdout)["runs"] == []
    assert (done.returncode, "a print" in done.stderr, "a child" in done.stderr) == (0, True, True)


def test_help_is_text_and_text_stays_without_the_option(home, capsys):
    with pytest.raises(SystemExit):
        main(["runs", "list", "--json", "--help"])
    assert "--json" in capsys.readouterr().out
    assert main(["runs", "list"]) == 0
    assert capsys.readouterr().out.startswith("no runs below runs")
