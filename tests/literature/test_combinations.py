"""Which of the methods may be combined with what, and what a refusal says."""

import pytest
from small_runs import config

from fedimb.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("loss=fedrs calibration=la_post", "double correction"),
        ("loss=fedvls calibration=la_post", "double correction"),
        ("loss=bce aggregator=fedgrab calibration=la_post", "double correction"),
        *(
            (
                f"loss={loss} model.head=npe aggregator.objectives=[prior_estimator]",
                "double correction.*use one of them",
            )
            for loss in ("balanced_softmax", "local_balanced_softmax", "prcbl", "fedlc")
        ),
        ("model.head=npe aggregator.objectives=[distil,prior_estimator]", "'distil' teaches.*use model.head=linear"),
        (
            "model.head=npe aggregator.objectives=[prior_estimator,not_true_distil]",
            "double correction.*'not_true_distil'",
        ),
        ("aggregator=fedgrab", "works with loss bce only; use loss=bce"),
        ("aggregator=balancefl", "works with loss batch_restricted_ce only"),
        ("strategy=fednh", "needs a model with model.head=prototype"),
        ("model.head=etf calibration=tau", "has a fixed simplex as head"),
        ("model.head=quadratic calibration=tau", "has a quadratic head"),
        ("model.head=prototype calibration=fednpc", "has class prototypes as head"),
        ("strategy=fedyoyo", "works with loss dla only; use loss=dla"),
        ("strategy=fedyoyo loss=dla calibration=la_post", "double correction"),
        ("strategy=fedyoyo loss=dla local.augmentation=[{name:mixup}]", "'mixup' mixes rows; leave it out"),
        ("strategy=fediic local.augmentation=[{name:noise}]", "needs a model with model.head=projected"),
        ("strategy=fediic model.head=projected", "local.augmentation, which is empty"),
        (
            "strategy=fediic model.head=projected local.augmentation=[{name:noise}] local.label_smoothing=0.1",
            "adjusts the loss of its views itself",
        ),
        ("strategy=rucr calibration=la_post", "double correction"),
        ("strategy=[rucr,scope]", "runs its rounds itself"),
        ("strategy=climb aggregator=fedexp", "aggregates the clients' weights itself"),
        ("strategy=climb privacy.clip=1.0 privacy.noise=1.0 aggregation_weight=uniform", "weighs clients by what they"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_remedy(words, why):
    with pytest.raises(ConfigError, match=why):
        config(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "loss=fedrs",
        "loss=ala model.head=bias_free",
        "loss=fedvls aggregator=distil aggregator.temperature=1.0 aggregator.absent_only=true",
        "loss=batch_restricted_ce aggregator=balancefl sampler=class_balanced",
        "loss=bce aggregator=fedgrab",
        "loss=local_balanced_softmax loss.absent=one model.head=etf",
        "strategy=fednh model.head=prototype",
        "strategy=climb",
        "strategy=creff",
        "strategy=fedrela",
        "strategy=fedyoyo loss=dla local.augmentation=[{name:flip}]",
        "strategy=fediic model.head=projected local.augmentation=[{name:rand_augment}]",
        "strategy=rucr",
        "calibration=[none,tau,gla_fr,fednpc]",
    ],
)
def test_the_words_of_the_page_are_accepted(words):
    config(*words.split())
