"""People, over real servers and nodes: a run ends while they are asked, and goes on when they have answered."""

import csv
from collections.abc import Iterator

import pytest
from behind_nginx import NGINX
from deployed import assert_same, events, small_study, usable
from typed import WAITING, Typed, named_in, typed

from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.home import NodeHome
from fedimb.engine import processes
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]
FAIRFAL = (
    "strategy=fairfal", "strategy.fairfal.cycles=2", "strategy.fairfal.budget=4", "strategy.fairfal.first=4",
)  # fmt: skip
FEDSSG = (
    "strategy=fedssg", "strategy.fedssg.source=client_generators", "strategy.fedssg.training={steps: 5}",
    "strategy.fedssg.pretrain=0", "strategy.fedssg.screen=false", "strategy.fedssg.release=manual", "rounds=1",
    "strategy.fedssg.audit={min_count: 5, power: 0.01, copied: 0.99, draws: 2, bootstrap: 5}",
)  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    study = small_study(tmp_path_factory.mktemp("Häuser"), {"linz": 400, "st-anna": 500}, "tracking=none")
    for home in study.homes.values():
        settings = home.file("node.yaml")
        settings.write_text(settings.read_text() + "\nsharing: {individual: true}\n")
    with typed(study) as running:
        nodes = running.nodes()
        yield running
        assert running.nodes() == nodes  # whoever decided, no node had to be started again
        assert healthy(study.deployment)
    assert [pid for pid in nodes.values() if processes.start_time(pid)] == []


def test_nothing_runs_until_the_last_site_has_approved_nor_once_one_has_withdrawn(up: Typed, tmp_path) -> None:
    study, plan = up.study, up.study.plan.sha
    assert up.at("linz", "inbox") == "nothing is waiting at linz\n"
    said = up.run(plan, expect=WAITING)
    assert f"waiting: linz (plan {plan}); st-anna (plan {plan})" in said
    folder = named_in(said)
    assert f"plan-{plan}" in up.at("linz", "inbox")
    up.at("linz", "approve", f"plan-{plan}", "--by", "Dr. Anna Weiß")
    assert f"waiting: st-anna (plan {plan})" in up.resume(folder, WAITING)
    assert not folder.metrics()
    assert {facts["outcome"] for facts in study.messages("st-anna", folder.path.name)} <= {"error"}
    up.at("st-anna", "approve", f"plan-{plan}", "--by", "Dr. Groß")
    up.resume(folder)
    assert_same(RunResult.read(folder.path), study.simulated(tmp_path))
    assert events(folder) == []

    up.at("st-anna", "reject", f"plan-{plan}", "--reason", "not covered by consent")
    refused = up.run(plan, "seed=1", expect=1)
    assert f"st-anna does not take part: st-anna: plan {plan} is rejected" in refused
    assert "consent" not in refused
    other = named_in(refused)
    assert other.status() == "failed"
    assert not study.homes["st-anna"].file("state", "runs", other.path.name).exists()


def test_labels_are_waited_for_in_each_cycle_and_the_run_ends_as_if_they_had_been_revealed(up: Typed, tmp_path) -> None:
    study = up.planned(*FAIRFAL, "strategy.fairfal.oracle={name: worklist}")
    folder, said = up.agreed(study)
    assert "waiting: linz (labels 0/4); st-anna (labels 0/4)\n" in said
    assert "0/4" in up.at("linz", "inbox")
    label(up, "linz", folder, 1)
    label(up, "st-anna", folder, 1, 3)
    assert "waiting: st-anna (labels 3/4)\n" in up.resume(folder, WAITING)
    assert usable(folder) == []
    label(up, "st-anna", folder, 1)
    assert "waiting: linz (labels 0/4); st-anna (labels 0/4)\n" in up.resume(folder, WAITING)
    assert usable(folder) == [2]  # the first cycle's round is done
    for site in study.homes:
        label(up, site, folder, 2)
    up.resume(folder)
    assert usable(folder) == [2, 2]
    revealed = up.planned(*FAIRFAL).simulated(tmp_path)
    assert_same(RunResult.read(folder.path), revealed)
    assert RunResult.read(folder.path).labels == revealed.labels == 16
    assert events(folder) == []


def label(up: Typed, site: str, folder: RunFolder, cycle: int, count: int | None = None) -> None:
    """Return the worklist's first rows with the labels of the site's table, as a reader does; None: all of them."""
    home: NodeHome = up.study.homes[site]
    run = home.file("worklists", folder.path.name.removeprefix("fairfal-"))
    rows = {one["id"]: int(one["row"]) for one in table(run / "site-only-map.csv")}
    truth = [one["label"] for one in table(up.shell.root / f"{site}.csv")]
    given = [one | {"label": truth[rows[one["id"]]]} for one in table(run / f"cycle-{cycle:02d}" / "tasks.csv")][:count]
    returned = run / f"cycle-{cycle:02d}" / "returned" / "anna.csv"
    with returned.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, given[0])
        writer.writeheader()
        writer.writerows(given)
    assert "no mistake" in up.shell.run_command("worklist", "check", str(returned))


def table(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_samples_leave_the_site_that_released_them_and_no_other(up: Typed) -> None:
    study = up.planned(*FEDSSG)
    folder, said = up.agreed(study)
    assert "waiting: linz (release); st-anna (release)\n" in said
    for site in study.homes:
        assert "x.samples" not in sent(study, site, folder)
    item = release_of(up, "linz")
    look = up.shell.run_command(
        "outbox", "show", item.removeprefix("release-"), "--folder", str(study.homes["linz"].root)
    )
    assert "waiting" in look
    up.at("linz", "approve", item, "--by", "Dr. Anna Weiß")
    assert "waiting: st-anna (release)\n" in up.resume(folder, WAITING)
    up.at("st-anna", "reject", release_of(up, "st-anna"), "--reason", "shows a name")
    up.resume(folder)
    assert "x.samples" in sent(study, "linz", folder)
    assert "x.samples" not in sent(study, "st-anna", folder)
    assert usable(folder) == [2]
    assert "shows a name" not in "".join(str(study.messages("st-anna", folder.path.name)))
    for site in study.homes:
        heads = str(folder.path / "heads" / f"{site}.jsonl")
        assert "all as written" in up.at(site, "audit", "verify", "--heads", heads)


def release_of(up: Typed, site: str) -> str:
    """The release that waits in the site's inbox."""
    (item,) = [line.split()[0] for line in up.at(site, "inbox").splitlines() if line.startswith("release-")]
    return item


def sent(study, site: str, folder: RunFolder) -> set[str]:
    """Keys of all records of the run that left the site."""
    return {record["key"] for facts in study.messages(site, folder.path.name) for record in facts["records"]}
