"""Over real servers and nodes: figures leave under masks, updates clipped and with noise, and what is stated holds."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from behind_nginx import NGINX
from deployed import Study, assert_same, events, small_study, weights
from scipy.optimize import brentq
from scipy.stats import norm
from typed import Typed, typed

from fedimb.data.prepare import prepare
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.site.egress_filter import record_facts
from fedimb.records import array_record
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]
SITES = {"linz": 60, "st-anna": 90, "va": 75}
CLIP, NOISE, ROUNDS = 0.05, 1.0, 2
CLIPPED = ("calibration=[none,la_post]", "aggregation_weight=uniform", f"privacy.clip={CLIP}")
MASKS = ("prior.provenance=secure_sum", "evaluation.secure=true")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    study = small_study(tmp_path_factory.mktemp("Häuser"), SITES, "tracking=none")
    with typed(study) as running:
        yield running


def test_masked_figures_are_the_open_ones_and_no_sites_own_figure_leaves(up: Typed, tmp_path: Path) -> None:
    masked, opened = up.planned(*CLIPPED, *MASKS), up.planned(*CLIPPED)
    result, folder = finished(up, masked)
    clear, clear_folder = finished(up, opened)
    assert_same(result, masked.simulated(tmp_path / "masked"))
    assert_same(result, opened.simulated(tmp_path / "opened"))
    assert_same(result, clear, 1e-6)
    for one in (result, clear):
        assert [row.label for row in one.rows] == ["uniform+clip_0.05", "uniform+clip_0.05+la_post"]
        check_sums(up, one)
    assert min(each_round(folder, "privacy/update_norm")) > CLIP  # so that clipping changed something

    for site, left in sent(masked, folder).items():
        assert {("query.masked_counts", "x.counts"), ("query.masked_scores", "x.scores")} <= left.keys()
        assert not {"query.class_counts", "query.scored"} & {message for message, _ in left}
        assert "x.confusion" not in {record for _, record in left}
        assert left["query.masked_counts", "x.counts"] not in plain_counts(opened, site)
    for site, left in sent(opened, clear_folder).items():
        assert {("query.scored", "x.scores"), ("train", "x.confusion")} <= left.keys()
        assert left["query.class_counts", "x.counts"] in plain_counts(opened, site)
    digests = [keys_met(up, site, folder) for site in SITES]
    assert len(digests[0]) == 1
    assert digests == [digests[0]] * len(SITES)


def test_noise_is_added_at_the_sites_and_its_epsilon_is_stated(up: Typed, tmp_path: Path) -> None:
    study = up.planned(*CLIPPED, *MASKS, f"privacy.noise={NOISE}")
    result, folder = finished(up, study)
    check_sums(up, result)  # noise is on weights, not on figures
    simulated = study.simulated(tmp_path)
    drawn = [np.abs(value - weights(simulated)[name]).max() for name, value in weights(result).items()]
    assert 1e-3 < max(drawn) < 10 * NOISE * CLIP  # other noise than the run's seed draws, of that size
    assert result.privacy is not None
    assert result.privacy == simulated.privacy
    stated, delta = each_round(folder, "privacy/epsilon"), result.privacy["delta"]
    assert stated == pytest.approx([epsilon(math.sqrt(rounds) / NOISE, delta) for rounds in (1, ROUNDS)])
    assert result.privacy["epsilon"] == stated[-1]
    own = math.sqrt(ROUNDS * len(SITES)) / NOISE  # the coordinator sees an update under one share of the noise
    assert result.privacy["epsilon_server"] == pytest.approx(epsilon(own, delta))
    for site in SITES:
        assert "x.confusion" not in {record for _, record in sent(study, folder)[site]}
        heads = str(folder.path / "heads" / f"{site}.jsonl")
        assert "all as written" in up.at(site, "audit", "verify", "--heads", heads)


def finished(up: Typed, study: Study) -> tuple[RunResult, RunFolder]:
    """The study's run, approved by all sites and run to its end."""
    folder, _ = up.agreed(study, expect=0)
    assert each_round(folder, "data/replies") == [len(SITES)] * ROUNDS
    assert events(folder) == []
    return RunResult.read(folder.path), folder


def each_round(folder: RunFolder, name: str) -> list[float]:
    """A metric by round, once for all calibrations."""
    return list({line["step"]: line["metrics"][name] for line in folder.metrics() if name in line["metrics"]}.values())


def check_sums(up: Typed, result: RunResult) -> None:
    """Rows that the prior counts and rows that were scored are together those in the sites' files."""
    labels = [row["label"] for site in SITES for row in csv.DictReader((up.shell.root / f"{site}.csv").open())]
    assert result.prior_counts is not None
    for row in result.rows:
        found = result.prior_counts + row.confusion.sum(axis=1)
        np.testing.assert_array_equal(found, [labels.count("ill"), labels.count("well")])


def sent(study: Study, folder: RunFolder) -> dict[str, dict[tuple[str, str], str]]:
    """By site: (message, record) -> hash, of all that left in a run, by the site's own log."""
    return {
        site: {
            (facts["type"], one["key"]): one["sha256"]
            for facts in study.messages(site, folder.path.name)
            for one in facts["records"]
        }
        for site in SITES
    }


def plain_counts(study: Study, site: str) -> set[str]:
    """Hashes that a record of the site's own class counts has, with and without a sign."""
    config = study.config
    everyone = prepare(config.data, config.partition, len(SITES), config.seed)
    rows = everyone.train[list(SITES).index(site)]
    own = np.bincount(everyone.store.y[rows], minlength=2)
    records = [array_record({"counts": own.astype(kind)}) for kind in (np.int64, np.uint64)]
    return {record_facts("x.counts", record)["sha256"] for record in records}


def keys_met(up: Typed, site: str, folder: RunFolder) -> set[str]:
    """Digests of the sites' public keys, as the site's log has them of a run: what is compared by telephone."""
    lines = AuditLog(up.study.homes[site].file("audit.jsonl")).lines()
    facts = [line["facts"] for line in lines if line["kind"] == "keys of other sites"]
    return {one["sha256"] for one in facts if one["run"] == folder.path.name}


def epsilon(mu: float, delta: float) -> float:
    """Of a Gaussian mechanism of sensitivity / deviation mu (Balle and Wang 2018, theorem 8)."""

    def over(e: float) -> float:
        return norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - delta

    return brentq(over, 0.0, 100.0, xtol=1e-12)
