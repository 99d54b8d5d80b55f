"""tau from held-out rows as a run: folds, sums, the trunk, resume, active learning, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from small_runs import config, weights_sha
from torch.nn.functional import cross_entropy

import fedimb
from fedimb.config.parts import build_model
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.deploy.study_plan.outbound_records import Sizes, message_counts, outbound_records
from fedimb.deploy.study_plan.plan import _masked
from fedimb.errors import ConfigError
from fedimb.evaluation.temperature import TEMPERATURES, loss_sums, mean_losses
from fedimb.models.base import load_into
from fedimb.records import unpack_arrays
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp import checkpoint, fold_runs
from fedimb.serverapp.launch import launch, resume
from fedimb.serverapp.progress import ProgressBar
from fedimb.serverapp.temperature import check_taus, fold_config, folds_needed
from fedimb.training.forward import forward_batched

BOTH = {"none": {}, "la_post": {"tau": 1.0}, "la_post:2": {"tau": "temperature"}}
ACTIVE = (
    *("strategy=active", "strategy.active.cycles=2", "strategy.active.budget=12", "rounds=4", "evaluation.last_k=2"),
    *("strategy.active.local_epochs=2", "local.batch_size=8"),
)


def start(where, *words, calibration=BOTH, engine=None):
    cfg = config("engine=inline", *words, f"output_dir={where}/runs").model_copy(update={"calibration": calibration})
    return launch(cfg, engine, ProgressBar(cfg.rounds, enabled=False))


def facts(result):
    """All that must not depend on a kill or an engine."""
    lines = [
        (line["row"], line["step"], {k: v for k, v in line["metrics"].items() if not k.startswith("time/")})
        for line in RunFolder(result.folder).metrics()
    ]
    found = json.loads((result.folder / "result.json").read_text())
    found["temperature"]["cost"].pop("client_seconds")
    kept = {key: found[key] for key in ("rows", "up_bytes", "down_bytes", "rounds", "temperature")}
    return weights_sha(result), lines, kept


@pytest.fixture(scope="module")
def found(cache_dir, tmp_path_factory):
    return start(tmp_path_factory.mktemp("found"))


def held_out(folder):
    """(logits [n, C], y [n]) of a fold's rows under its model, and the sum [37] over its clients."""
    federation, cfg = Federation.load(folder), json.loads((folder / "config.json").read_text())
    arrays, _ = unpack_arrays((folder / "checkpoint.safetensors").read_bytes())
    model = build_model(config(f"model={cfg['model']['name']}"), federation.n_classes, federation.input_shape)
    prefix = "model/global/p/"
    own = {k[len(prefix) :]: torch.from_numpy(v.copy()) for k, v in arrays.items() if k.startswith(prefix)}
    load_into(model, own)
    logits, labels, total = [], [], np.zeros(37, np.int64)
    for k in range(federation.n_clients):
        x, y = federation.client(k).tensors("validation")
        logits.append(forward_batched(model, x)[1])
        labels.append(y)
        if len(federation.train[k]):
            total += loss_sums(logits[-1], y)
    return torch.cat(logits), torch.cat(labels), total


def test_tau_is_that_of_a_direct_minimisation_and_the_masked_sum_is_the_open_one(found):
    parts = [held_out(found.folder / "folds" / str(fold)) for fold in range(5)]
    one = found.temperature["rules"]["temperature"]
    logits, y = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    assert one["rows"] == len(y) > 100
    assert one["folds"] == 5
    assert one["log_loss"] == mean_losses(sum(part[2] for part in parts), len(y))
    z = logits.double()
    direct = minimize_scalar(lambda t: float(cross_entropy(z / math.exp(t), y)), bounds=(-1.4, 2.8), method="bounded")
    assert abs(math.log(one["tau"]) - direct.x) < math.log(2) / 6
    assert one["temperatures"] == list(TEMPERATURES)
    assert found.rows[2].tau == one["tau"]
    assert (found.rows[2].tau_rule, found.rows[1].tau_rule, found.rows[1].tau) == ("temperature", "", 1.0)


def test_the_model_and_the_row_at_tau_one_are_those_without_folds(found, tmp_path):
    without = start(tmp_path, calibration={"none": {}, "la_post": {"tau": 1.0}})
    ours, theirs = ((r.folder / "artifacts/model/model.safetensors").read_bytes() for r in (found, without))
    assert ours == theirs
    stored = [json.loads((r.folder / "result.json").read_text())["rows"][:2] for r in (found, without)]
    assert str(stored[0]) == str(stored[1])  # text, for NaN equals NaN there
    assert (found.up_bytes, found.steps) == (without.up_bytes, without.steps)
    assert found.temperature["cost"]["steps"] > 3 * found.steps
    assert [row.label for row in found.rows] == ["fedavg", "la_post", "la_post@temperature"]


def test_every_round_and_a_saved_model_are_scored_with_the_number(found):
    lines = [line["metrics"] for line in RunFolder(found.folder).metrics() if line["row"] == "la_post@temperature"]
    assert all("test/macro_recall" in line for line in lines)
    facts = json.loads((found.folder / "artifacts/model/model.json").read_text())
    assert facts["calibration"]["la_post:2"] == {"tau": found.rows[2].tau}
    model = fedimb.load_model(found.folder)
    shape = (4, *model.input_shape)
    rows = np.random.default_rng(0).integers(0, 16, shape).astype(np.uint8)
    assert np.isfinite(model.predict(rows, calibration="la_post:2").scores).all()


def test_the_curve_over_tau_goes_through_the_rows(found):
    head, *lines = (found.folder / "artifacts/tau_curve.csv").read_text().splitlines()
    assert head == "tau,macro_recall,minority_recall,accuracy"
    curve = {float(line.split(",")[0]): [float(x) for x in line.split(",")[1:]] for line in lines}
    assert list(curve) == [step / 4 for step in range(17)]
    for tau, row in ((0.0, found.rows[0]), (1.0, found.rows[1])):
        wanted = [row.final[name] for name in ("macro_recall", "minority_recall", "accuracy")]
        np.testing.assert_allclose(curve[tau], wanted, rtol=1e-5)


def test_the_panel_shows_it(found):
    from fedimb.cli.output.results import RunFinished
    from fedimb.report.temperature import temperature_lines

    text = "\n".join(temperature_lines(found))
    assert f"{found.rows[2].tau:.2f}" in text
    assert "held-out rows of 5 folds" in text
    assert RunFinished.from_result(found).temperature.rules["temperature"].tau == found.rows[2].tau


@pytest.mark.parametrize("at", [3, 9])
def test_interrupted_in_a_fold_or_after_them_it_ends_the_same(found, tmp_path, monkeypatch, at):
    original, passed = checkpoint.FolderCheckpointer.checkpoint, 0

    def stop(self, loop):
        nonlocal passed
        original(self, loop)
        inside = "folds" in self.folder.path.parts
        passed += inside if at == 3 else not inside
        if passed == (at if at == 3 else 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.FolderCheckpointer, "checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    monkeypatch.setattr(checkpoint.FolderCheckpointer, "checkpoint", original)
    if at != 3:  # the folds are done: none is trained again
        monkeypatch.setattr(fold_runs, "_train", None)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert facts(resume(folder)) == facts(found)


@pytest.mark.slow
def test_on_ray_it_is_the_same(found, tmp_path):
    from fedimb.engine.ray import RayEngine

    with RayEngine(workers=2) as engine:
        there = start(tmp_path, "engine=ray", engine=engine)
    assert facts(there) == facts(found)


def test_without_test_rows_the_clients_score_with_the_number(tmp_path):
    result = start(tmp_path, "data.test={name: none}", "data.validation=0.3", "evaluation.temperature=true")
    tau, rules = result.rows[2].tau, result.temperature["rules"]
    assert tau == rules["temperature"]["tau"]
    federation = Federation.load(result.folder)
    assert rules["validation"]["rows"] == federation.validation.sizes.sum()
    assert rules["temperature"]["rows"] <= federation.train_sizes.sum()
    prior = np.log(result.prior_counts / result.prior_counts.sum())
    pairs = [federation.client(k).tensors("validation") for k in range(federation.n_clients)]
    x, y = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
    with torch.no_grad():
        said = (result.model.classifier(x) - tau * torch.from_numpy(prior).float()).argmax(1)
    assert np.trace(result.rows[2].confusion) == int((said == y).sum())
    line = RunFolder(result.folder).metrics()[-1]["metrics"]
    assert "comm/up_bytes/masked_losses" not in line  # sent after the last round's line
    assert not (result.folder / "artifacts/tau_curve.csv").exists()


@pytest.fixture(scope="module")
def active(cache_dir, tmp_path_factory):
    calibration = BOTH | {"la_post:3": {"tau": "oracle_pool"}}
    return start(tmp_path_factory.mktemp("active"), *ACTIVE, calibration=calibration)


def test_active_learning_holds_out_labelled_rows_and_the_oracle_those_nobody_labelled(active):
    federation = Federation.load(active.folder)
    rules = active.temperature["rules"]
    asked = np.minimum(federation.train_sizes, 24).sum()
    assert asked - 10 <= rules["temperature"]["rows"] <= asked
    assert rules["oracle_pool"]["rows"] == 5 * (federation.train_sizes.sum() - asked)
    fold = Federation.load(active.folder / "folds" / "0")
    assert fold.train_sizes.sum() + fold.validation.sizes.sum() == asked
    own = json.loads((active.folder / "folds/0/config.json").read_text())
    assert (own["rounds"], list(own["strategy"])) == (2, ["plain"])
    labels = ["active_random", *(f"active_random+la_post{rule}" for rule in ("", "@temperature", "@oracle_pool"))]
    assert [row.label for row in active.rows] == labels


def test_active_rounds_before_all_rows_are_labelled_have_no_score_of_it(active):
    lines = [line for line in RunFolder(active.folder).metrics() if line["row"] == "active_random+la_post@temperature"]
    assert [("test/macro_recall" in line["metrics"]) for line in lines] == [False, False, True, True]


WORDS = "calibration=la_post calibration.la_post.tau=temperature"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("loss=balanced_softmax", "double correction"),
        ("loss=class_balanced", "loss 'class_balanced' trains them for another class prior.*give tau as a number"),
        ("sampler=class_balanced", "sampler 'class_balanced' trains them for another"),
        ("privacy.clip=1.0 privacy.noise=1.0 aggregation_weight=uniform", "epsilon of privacy.noise does not cover"),
        ("calibration.la_post.tau=temperatur", "tau"),
    ],
)
def test_refused_with_the_configuration(words, why):
    with pytest.raises(ConfigError, match=why):
        config("engine=inline", *WORDS.split(), *words.split())


@pytest.fixture(scope="module")
def federation(cache_dir):
    cfg = config("engine=inline")
    return prepare(cfg.data, cfg.partition, cfg.clients.count, cfg.seed)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("calibration.la_post.tau=temperature_one_fold", "holds out .* too few for a temperature .500 are needed"),
        ("calibration.la_post.tau=oracle_pool", "this run labels none: use tau=temperature"),
        ("attack=label_flip", "attackers' losses cannot be left out"),
        ("strategy=active strategy.active.cycles=3 rounds=3", r"set evaluation\.last_k=1"),
        (
            "strategy=active strategy.active.cycles=1 strategy.active.budget=2 evaluation.last_k=1",
            "labels are too few for a temperature",
        ),
        ("evaluation.temperature=true", r"data\.validation=0\.2"),
        ("evaluation.temperature=true clients.count=1 data.validation=0.2", "hides nothing with one client"),
    ],
)
def test_refused_with_the_data(federation, words, why):
    cfg = config("engine=inline", *WORDS.split(), *words.split())
    with pytest.raises(ConfigError, match=why):
        check_taus(cfg, federation)


def test_a_deployment_is_told_what_to_do_instead(federation):
    with pytest.raises(ConfigError, match=r"evaluation\.temperature=true, whose result says the temperature"):
        check_taus(config("engine=inline", *WORDS.split()), federation, deployed=True)


def test_several_labels_per_row_are_refused():
    from fedimb.config.validate import check_task

    with pytest.raises(ConfigError, match="calibration 'la_post' is for multiclass data"):
        check_task(config("engine=inline", "loss=bce", *WORDS.split()), "multilabel")


def test_a_plan_lists_37_masked_numbers_asked_once():
    cfg = config("data.test={name: none}", "data.validation=0.2", "evaluation.temperature=true", "clients.count=4")
    sizes = Sizes(classes=10, domains=4, features=48, parameters=9, weight_bytes=36, buffer_bytes=0)
    (row,) = [r for r in outbound_records(cfg, sizes, 3) if r.record == "x.losses"]
    assert (row.shape, row.most_bytes, row.sensitivity, row.refusable) == ("37", 37 * 8, "aggregate", False)
    assert row.protection.startswith("masked between sites")
    counts = message_counts(cfg, 3)
    assert counts["query.masked_losses"] == 1
    assert counts["query.sum_agree"] == 1
    assert _masked(cfg) == "evaluation.temperature=true"
    plain = config("data.test={name: none}", "data.validation=0.2", "clients.count=4")
    assert "query.masked_losses" not in message_counts(plain, 3)


def test_a_fold_trains_as_the_run_does_and_is_scored_at_the_end(federation):
    cfg = config("engine=inline", *WORDS.split(), "local.lr=0.05", "aggregator=fedprox")
    own = fold_config(cfg)
    assert folds_needed(cfg) == 5
    assert folds_needed(own) == 0
    assert (own.rounds, own.local, own.aggregator, own.seed) == (cfg.rounds, cfg.local, cfg.aggregator, cfg.seed)
    assert own.evaluation.secure
    assert own.evaluation.every == cfg.rounds


def test_the_dry_run_prices_the_folds(cache_dir):
    from fedimb.serverapp.estimate import estimate

    cost = estimate(config("engine=inline", *WORDS.split(), "rounds=2"))
    assert cost.folds == 5
    assert 3 * cost.steps < cost.fold_steps <= 5 * cost.steps
    assert cost.fold_up_bytes == 5 * cost.up_bytes
    assert "5   trainings without a fold" in cost.table()
    assert cost.minutes > (cost.start_s + cost.seconds) / 60


def test_hashes_of_configurations_without_it_are_as_before():
    from fedimb.config.load import config_sha

    one = config("calibration=la_post")
    assert config_sha(one) != config_sha(config("calibration=la_post", "evaluation.temperature=true"))
    assert config_sha(one) == "2223f2f9d8bb80fcf780605ad652b3314b8cc53f493d255a083984407a96c679"
