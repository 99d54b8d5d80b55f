"""Runs with clipped and noised updates: what changes, what must not, and what is refused."""

import json
import math

import numpy as np
import pytest
from interrupted import interrupted, only_run
from small_runs import config, launch_in, weights_sha

from fedimb.config.load import config_sha, from_json, row_label, to_json
from fedimb.errors import ConfigError
from fedimb.privacy.gaussian import epsilon_of
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import load_model
from fedimb.serverapp.launch import resume

INLINE, EQUAL = "engine=inline", "aggregation_weight=uniform"
NOISY = (INLINE, EQUAL, "privacy.clip=0.5", "privacy.noise=0.8")


def flat(result):
    model = load_model(result.folder)
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def metrics(result, key):
    return [line["metrics"].get(key) for line in RunFolder(result.folder).metrics()]


def test_a_norm_nobody_reaches_changes_nothing_and_is_how_to_find_one(tmp_path):
    plain, wide = launch_in(tmp_path, INLINE), launch_in(tmp_path, INLINE, "privacy.clip=1e6")
    np.testing.assert_allclose(flat(wide), flat(plain), atol=1e-6)
    norms = metrics(wide, "privacy/update_norm")
    assert all(0.1 < norm < 20 for norm in norms)
    assert metrics(plain, "privacy/update_norm") == [None] * 3
    cut = launch_in(tmp_path, INLINE, f"privacy.clip={min(norms) / 10}", "rounds=1")
    assert weights_sha(cut) != weights_sha(plain)


@pytest.mark.parametrize("trainer", ["loop", "stacked"])
def test_noise_is_stated_logged_and_repeats(tmp_path, trainer):
    result = launch_in(tmp_path, *NOISY, f"engine.trainer={trainer}")
    epsilons = metrics(result, "privacy/epsilon")
    np.testing.assert_allclose(epsilons, [epsilon_of(0.8 / math.sqrt(n), 1e-5) for n in (1, 2, 3)])
    assert result.privacy["epsilon"] == pytest.approx(epsilons[-1])
    assert result.privacy["epsilon_server"] > epsilons[-1]
    assert metrics(result, "train/loss") == [None] * 3  # what noise hides is not told beside it
    again = launch_in(tmp_path / "again", *NOISY, f"engine.trainer={trainer}")
    assert weights_sha(again) == weights_sha(result)


def test_the_noise_on_the_mean_is_noise_times_clip_over_the_cohort(tmp_path):
    words = (INLINE, EQUAL, "privacy.clip=0.01", "rounds=1", "clients.count=4")
    quiet = launch_in(tmp_path, *words)
    loud = launch_in(tmp_path, *words, "privacy.noise=100.0")
    drawn = flat(loud) - flat(quiet)
    assert drawn.std() == pytest.approx(100 * 0.01 / 4, rel=0.1)


def test_a_killed_run_resumes_to_the_same_epsilon_and_weights(tmp_path):
    whole = launch_in(tmp_path / "whole", *NOISY)
    with interrupted(2, after=True):
        launch_in(tmp_path, *NOISY)
    folder = only_run(tmp_path)
    result = resume(folder)
    assert weights_sha(result) == weights_sha(whole)
    assert result.privacy == whole.privacy


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("privacy.noise=1.0 aggregation_weight=uniform", r"set privacy\.clip to a norm"),
        ("privacy.noise=1.0 privacy.clip=1.0", "set aggregation_weight=uniform"),
        (
            "privacy.noise=1.0 privacy.clip=1.0 aggregation_weight=uniform aggregator=krum",
            "aggregator 'krum' works on the update of each client",
        ),
        ("privacy.clip=1.0 aggregator=scaffold", "objective 'control_variate' sends x.variate"),
        *(
            (f"privacy.noise=1.0 privacy.clip=1.0 aggregation_weight=uniform strategy={name}", beside)
            for name, beside in (("creff", "'creff' uses x.creff_gradients"), ("scope", "'scope' uses x."))
        ),
    ],
)
def test_what_would_break_the_promise_is_refused(words, why):
    with pytest.raises(ConfigError, match=why):
        config(*words.split())


def test_running_statistics_are_refused_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.norm=group"):
        launch_in(tmp_path, *NOISY, "model=cnn4conv", "model.norm=batch")


def test_a_configuration_without_it_keeps_its_hash_and_meaning():
    plain = config()
    tree = json.loads(to_json(plain))
    del tree["privacy"], tree["evaluation"]["secure"]
    old = from_json(json.dumps(tree))
    assert old == plain
    hashed = config_sha(plain)
    assert hashed == config_sha(old)
    others = {config_sha(config(word)) for word in ("privacy.clip=1.0", "evaluation.secure=true")}
    assert len({*others, hashed}) == 3
    assert row_label(config(*NOISY), "la_post") == "uniform+clip_0.5+noise_0.8+la_post"
