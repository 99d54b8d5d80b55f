"""Runs whose clients train different networks, or keep a part of theirs: right values, and nothing is lost."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import config

import fedimb
from fedimb.clientapp.private_weights import COUNTS, STATE
from fedimb.clientapp.state import StateStore
from fedimb.data.federation import Federation
from fedimb.engine.ray import RayEngine
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import load_arrays, to_numpy
from fedimb.report.panel import panels
from fedimb.serverapp.client_scores import check_scores
from fedimb.study.collect import read_run
from fedimb.study.design import Costs
from fedimb.testing.runs import configured, kept, run, run_killed, small_tables, weights

HIDDEN = "model.hidden=[8]"
OTHER = "clients.models={kinds: {other: {name: mlp, hidden: [6]}}, at: {1: other}}"
DEEP = "clients.models={kinds: {deep: {name: mlp, hidden: [8, 4]}}, at: {1: deep}, average: alike}"
PRIVATE = "clients.private=[head]"


@pytest.fixture(scope="module")
def folder():
    with small_tables() as path:
        yield path


def trained(folder, name, *words, aggregator="fedavg", engine=None):
    """The result of a run of two rounds over the small federation of three sites."""
    cfg = configured(folder, ["rounds=2", "local.lr=0.2", HIDDEN, *words], {"aggregator": (aggregator, {})})
    return run(cfg, folder / name, engine)


def of_checkpoint(result):
    """The weights of the last checkpoint by name."""
    arrays = load_arrays(result.folder / "checkpoint.safetensors")[0]
    return {k.removeprefix("model/global/p/"): v for k, v in arrays.items() if k.startswith("model/global/p/")}


@pytest.fixture(scope="module")
def plain(folder):
    return of_checkpoint(trained(folder, "plain"))


@pytest.mark.parametrize("average", ["kind", "alike"])
def test_one_network_for_all_is_the_ordinary_run_bit_by_bit(folder, plain, average):
    """Every client trains the kind 'twin'; or two kinds are the same network, and all their layers are shared."""
    at = "{0: twin, 1: twin, 2: twin}" if average == "kind" else "{1: twin}"
    words = f"clients.models={{kinds: {{twin: {{name: mlp, hidden: [8]}}}}, at: {at}, average: {average}}}"
    found = of_checkpoint(trained(folder, f"twin-{average}", "model.hidden=[8]", words))
    group = "twin" if average == "kind" else "shared"
    assert found.keys() == {f"{group}/{name}" for name in plain}
    for name, value in plain.items():
        np.testing.assert_array_equal(found[f"{group}/{name}"], value)


def test_a_kinds_weights_do_not_depend_on_what_the_others_train(folder):
    """The mean of a kind is over its own clients: another network at client 1 changes nothing for clients 0 and 2."""
    one = of_checkpoint(trained(folder, "one", OTHER))
    two = of_checkpoint(trained(folder, "two", OTHER.replace("[6]", "[5, 4]")))
    own = [name for name in one if name.startswith("model/")]
    assert len(own) == 4
    for name in own:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_score_is_the_mean_over_sites_of_what_their_models_reach(folder):
    result = trained(folder, "scored", OTHER, "evaluation.bootstrap=50")
    facts = json.loads((result.folder / "artifacts" / "site_models.json").read_text())
    assert {one["name"]: one["clients"] for one in facts} == {"model": [0, 2], "other": [1]}
    row = result.rows[0]
    own = [(len(one["clients"]), one["rows"][row.label]["macro_recall"]) for one in facts]
    assert row.final["macro_recall"] == pytest.approx(sum(n * value for n, value in own) / 3)
    assert row.confusion.sum() == 3 * 24  # each test row once for every site
    low, high = row.intervals["macro_recall"]
    assert low < row.final["macro_recall"] < high
    assert row.copies == 3
    assert row.tested_matrix.sum(axis=1).tolist() == pytest.approx([8] * 3)
    said = panels(result)
    for low, high, digits in ((*row.intervals["macro_recall"], 3), (*row.recall[0][1:], 2)):
        assert f"{low:.{digits}f} to {high:.{digits}f}" in said  # as stored: drawn over rows, each once
    few = [f"{round(value)} of 8 test rows" for value in row.tested_matrix.diagonal()[list(result.minority)]]
    assert any(f"(mean over 3 sites' models) found {one}" in " ".join(said.split()) for one in few)
    (kept,) = read_run(result.folder, "", Costs(), {"none": row.label})
    np.testing.assert_array_equal(kept.matrix, row.tested_matrix)
    assert row.recall[0][1:] == pytest.approx(list(wilson_of(row.recall[0][0], 8)))  # of 8 rows, not of 24


def test_client_figures_are_of_each_clients_own_model_on_its_own_classes(folder):
    result = trained(folder, "clients", PRIVATE)
    federation = Federation.load(result.folder)
    rows, labels = (values[federation.test] for values in (federation.store.x, federation.store.y))
    expected = []
    for client, held in enumerate(federation.counts):
        with torch.no_grad():
            said = fedimb.load_model(result.folder, site=f"client-{client}")(rows).argmax(dim=1).numpy()
        recall = [(said[labels == c] == c).mean() for c in range(3)]
        expected.append(held / held.sum() @ recall)
    row = result.rows[0]
    assert row.defined_clients == 3
    found = (row.worst_client, row.mean_client, row.best_client)
    assert found == pytest.approx((min(expected), np.mean(expected), max(expected)))
    assert min(expected) < max(expected)


def wilson_of(share, rows):
    from fedimb.evaluation.intervals import wilson

    return tuple(float(bound) for bound in wilson(share * rows, rows))


def test_a_private_head_stays_at_its_client_and_the_body_is_averaged(folder):
    result = trained(folder, "private", PRIVATE)
    assert of_checkpoint(result).keys() == {"body.1.weight", "body.1.bias"}
    store, versions = StateStore(result.folder / "clients"), load_arrays(result.folder / "checkpoint.safetensors")[1]
    heads = [
        to_numpy(store.load(client, int(versions["versions"][str(client)])).array_records[STATE]) for client in range(3)
    ]
    assert all(head.keys() == {"head.weight", "head.bias"} for head in heads)
    assert not np.array_equal(heads[0]["head.weight"], heads[1]["head.weight"])
    for client, head in enumerate(heads):  # the stored model of a site is the mean body with its own head
        file = load_file(result.folder / "artifacts" / "models" / f"client-{client}" / "model.safetensors")
        np.testing.assert_array_equal(file["head.weight"], head["head.weight"])
        np.testing.assert_array_equal(file["body.1.weight"], of_checkpoint(result)["body.1.weight"])


def test_with_one_client_nothing_is_averaged_and_a_private_head_changes_nothing(folder):
    """A mean over one client is its own weights: head and body end as in the ordinary run."""
    results = []
    for name, words in (("alone", []), ("alone-private", [PRIVATE])):
        cfg = configured(folder, ["rounds=3", HIDDEN, *words], {"aggregator": ("fedavg", {})}, clients=1)
        results.append(run(cfg, folder / name))
    whole = load_file(results[0].folder / "artifacts" / "model" / "model.safetensors")
    own = load_file(results[1].folder / "artifacts" / "models" / "client-0" / "model.safetensors")
    assert whole.keys() == own.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(own[name], value, rtol=1e-5, atol=1e-6)


def test_clients_score_their_own_models_where_the_server_has_no_test_rows(folder):
    words = [OTHER, PRIVATE, "data.test={name: none}", "data.validation=0.3"]
    result = trained(folder, "clients-score", *words)
    total = result.rows[0].confusion.sum()
    rows = json.loads((result.folder / "partition.json").read_text())["test_counts"]
    assert np.isnan(result.rows[0].worst_client)  # their matrices are a sum over models
    assert result.rows[0].defined_clients == 0
    assert total == sum(rows) > 0


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([DEEP, PRIVATE], id="alike-private"),
        pytest.param([OTHER], id="kinds", marks=pytest.mark.slow),
    ],
)
def test_killed_after_every_checkpoint_and_resumed_equals_uninterrupted(folder, words, tmp_path):
    cfg = configured(folder, ["rounds=2", HIDDEN, *words, "clients.dropout=0.2"], {"aggregator": ("fedadam", {})})
    whole = run(cfg, tmp_path / "whole")
    resumed, deaths = run_killed(cfg, tmp_path / "killed")
    assert deaths >= 2
    assert kept(resumed).keys() == kept(whole).keys()
    for name, value in kept(whole).items():
        np.testing.assert_equal(kept(resumed)[name], value, err_msg=name)
    assert weights(resumed) == weights(whole)


def test_clients_of_a_kind_are_stacked_with_the_same_result(folder):
    loop = of_checkpoint(trained(folder, "loop", OTHER, "engine.trainer=loop"))
    stacked = of_checkpoint(trained(folder, "stacked", OTHER, "engine.trainer=stacked"))
    assert loop.keys() == stacked.keys()
    for name, value in loop.items():
        np.testing.assert_allclose(stacked[name], value, rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"clients\.private lets each client start from other weights"):
        trained(folder, "refused", PRIVATE, "engine.trainer=stacked")


@pytest.mark.parametrize("own", [OTHER, PRIVATE], ids=["models", "private"])
@pytest.mark.parametrize("test", ["own", "none"])
def test_scores_by_subgroup_of_several_models_are_refused(own, test):
    words = [own, "data.subgroups=[site]", "data.validation=0.2"]
    words += ["data.test={name: none}"] * (test == "none")
    with pytest.raises(
        ConfigError, match=r"data\.subgroups scores one model.*clients\.(models|private) leaves none of"
    ):
        check_scores(config(*words), "multiclass")


@pytest.mark.slow
def test_ray_gives_the_weights_of_inline(folder):
    for name, words in (("deep", [DEEP, PRIVATE]), ("kinds", [OTHER])):
        inline = trained(folder, f"inline-{name}", *words, "engine.trainer=loop")
        engine = RayEngine(workers=2)
        try:
            ray = trained(folder, f"ray-{name}", *words, "engine=ray", "engine.trainer=loop", engine=engine)
        finally:
            engine.close()
        assert weights(ray) == weights(inline)


def test_predictions_are_of_the_site_that_is_named(folder):
    result = trained(folder, "predict", OTHER)
    rows = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with pytest.raises(ConfigError, match=r"models of their own: name a site .*it has model, other, client-0"):
        fedimb.load_model(result.folder)
    with pytest.raises(ConfigError, match="there is no site 'client-7'"):
        fedimb.load_model(result.folder, site="client-7")
    by_client, by_kind = (fedimb.load_model(result.folder, site=site) for site in ("client-1", "other"))
    assert torch.equal(by_client(rows), by_kind(rows))
    assert [m.out_features for m in by_kind.classifier.modules() if isinstance(m, torch.nn.Linear)] == [6, 3]
    ordinary = trained(folder, "ordinary")
    with pytest.raises(ConfigError, match="has one model for all its sites"):
        fedimb.load_model(ordinary.folder, site="client-1")


TWO_OF_THREE = ("clients.participation=0.5", "rounds=1")
ONE_OF_THREE = ("clients.participation=0.3", "rounds=1")


def asked(result):
    """The clients that took part, from what they have kept."""
    return sorted(map(int, load_arrays(result.folder / "checkpoint.safetensors")[1]["versions"]))


def test_a_private_head_that_was_never_trained_is_in_no_score(folder):
    result = trained(folder, "never", PRIVATE, *TWO_OF_THREE, "evaluation.bootstrap=20")
    took_part = asked(result)
    missing = [f"client-{k}" for k in range(3) if k not in took_part]
    assert len(missing) == 1
    assert result.untrained == {"sites": missing, "rows": 0}
    assert result.rows[0].copies == len(took_part)
    assert result.rows[0].confusion.sum() == 24 * len(took_part)
    assert result.rows[0].defined_clients == len(took_part)
    federation = Federation.load(result.folder)
    rows, labels = (values[federation.test] for values in (federation.store.x, federation.store.y))
    recalls = []
    for client in took_part:
        with torch.no_grad():
            said = fedimb.load_model(result.folder, site=f"client-{client}")(rows).argmax(dim=1).numpy()
        recalls.append(np.mean([(said[labels == c] == c).mean() for c in range(3)]))
    assert result.rows[0].final["macro_recall"] == pytest.approx(np.mean(recalls))
    assert f"({', '.join(missing)}): their own model was never trained" in " ".join(panels(result).split())
    with pytest.raises(ConfigError, match=f"that of '{missing[0]}' was never trained"):
        fedimb.load_model(result.folder, site=missing[0])


def test_a_network_that_nobody_trained_is_in_no_score(folder):
    (idle,) = {0, 1, 2} - set(asked(trained(folder, "never-alone", PRIVATE, *TWO_OF_THREE)))
    kinds = f"clients.models={{kinds: {{other: {{name: mlp, hidden: [6]}}}}, at: {{{idle}: other}}}}"
    result = trained(folder, "never-kind", kinds, *TWO_OF_THREE)
    assert result.untrained == {"sites": [f"client-{idle}"], "rows": 0}
    assert result.rows[0].copies == 2  # the others share one network, which was trained
    assert json.loads((result.folder / "artifacts" / "models" / "index.json").read_text()).keys() == {"model"}


def test_a_run_without_a_trained_model_to_score_fails(folder):
    words = ["data.test={name: none}", "data.validation=0.3", *ONE_OF_THREE]
    with pytest.raises(RunFailed, match="no site that has rows to score on has trained its model"):
        trained(folder, "never-all", PRIVATE, *words)  # only the site of one row, which validates nothing


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_with_an_untrained_head_counts_no_validation_row(folder, secure):
    words = ["data.test={name: none}", "data.validation=0.3", f"evaluation.secure={secure}".lower(), "seed=1"]
    result = trained(folder, f"never-score-{secure}", PRIVATE, *words, *ONE_OF_THREE)
    held = Federation.load(result.folder).validation.sizes
    counted = sum(held[k] for k in asked(result))
    assert result.untrained["rows"] == held.sum() - counted > 0
    assert result.rows[0].confusion.sum() == counted > 0
    assert bool(result.untrained["sites"]) != secure  # masks hide whose rows they are


OWN_COUNTS = (PRIVATE, "calibration=[none,la_post]", "prior.provenance=local")


def test_post_hoc_adjustment_of_a_private_head_is_by_its_own_sites_counts(folder):
    """Site 0 trained on 18, 12 and 6 rows, site 1 on 7 and 3 and none, site 2 on one row of the last class."""
    result = trained(folder, "own-counts", *OWN_COUNTS)
    federation = Federation.load(result.folder)
    assert federation.counts.tolist() == [[18, 12, 6], [7, 3, 0], [0, 0, 1]]
    rows, labels = (values[federation.test] for values in (federation.store.x, federation.store.y))
    recalls = []
    for client, prior in enumerate(([18, 12, 6], [7, 3, 3], [1, 1, 1])):  # without rows: as the rarest that has some
        model = fedimb.load_model(result.folder, site=f"client-{client}")
        with torch.no_grad():
            said = (model(rows) - torch.log(torch.tensor(prior, dtype=torch.float32))).argmax(dim=1)
        recalls.append(np.mean([(said.numpy()[labels == c] == c).mean() for c in range(3)]))
        predicted = model.predict(rows, calibration="la_post")
        assert [result.class_names.index(name) for name in predicted.classes] == said.tolist()
    raw, adjusted = (row.final["macro_recall"] for row in result.rows)
    assert adjusted == pytest.approx(np.mean(recalls))
    assert adjusted != raw
    assert result.prior_counts is None


@pytest.mark.parametrize("secure", [False, True])
def test_clients_that_score_themselves_adjust_by_their_own_counts(folder, secure):
    words = ["data.test={name: none}", "data.validation=0.3", f"evaluation.secure={secure}".lower()]
    result = trained(folder, f"own-counts-{secure}", *OWN_COUNTS, *words)
    federation = Federation.load(result.folder)
    arrays = load_arrays(result.folder / "checkpoint.safetensors")
    store, versions = StateStore(result.folder / "clients"), arrays[1]["versions"]
    body = of_checkpoint(result)
    expected = np.zeros((3, 3), np.int64)
    for client in range(3):
        state = store.load(client, int(versions[str(client)]))
        own = to_numpy(state.array_records[STATE])
        rows = np.asarray(federation.validation[client])
        x = np.asarray(federation.store.x[rows])
        hidden = np.maximum(x @ body["body.1.weight"].T + body["body.1.bias"], 0)
        counts = np.bincount(federation.store.y[federation.train[client]], minlength=3)
        np.testing.assert_array_equal(to_numpy(state.array_records[COUNTS])["counts"], counts)
        prior = np.where(counts > 0, counts, counts[counts > 0].min())
        said = (hidden @ own["head.weight"].T + own["head.bias"] - np.log(prior / prior.sum())).argmax(axis=1)
        np.add.at(expected, (federation.store.y[rows], said), 1)
    np.testing.assert_array_equal(result.rows[1].confusion, expected)
