"""Learning rates over the rounds: the factor by hand and by torch's own schedulers, and what a schedule refuses."""

import pytest
import torch
from small_runs import config

from fedimb.config.load import config_sha
from fedimb.config.parts import learning_rate
from fedimb.errors import ConfigError
from fedimb.schema import ScheduleConfig
from fedimb.training.schedules import schedule_factor

OPTIM = torch.optim.lr_scheduler


def by_torch(make, rounds):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, seen = make(optimizer), []
    for _ in range(rounds):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ({"name": "constant"}, lambda o: OPTIM.ConstantLR(o, factor=1.0)),
        ({"name": "step", "milestones": [3, 7], "gamma": 0.1}, lambda o: OPTIM.MultiStepLR(o, [3, 7], 0.1)),
        ({"name": "exponential", "gamma": 0.99}, lambda o: OPTIM.ExponentialLR(o, 0.99)),
        ({"name": "cosine"}, lambda o: OPTIM.CosineAnnealingLR(o, T_max=12)),
        ({"name": "cosine", "final": 0.25}, lambda o: OPTIM.CosineAnnealingLR(o, T_max=12, eta_min=0.25)),
        (
            {"name": "constant", "warmup": 4, "start": 0.2},
            lambda o: OPTIM.LinearLR(o, start_factor=0.2, total_iters=4),
        ),
        (
            {"name": "cosine", "warmup": 4, "start": 0.2},
            lambda o: OPTIM.SequentialLR(
                o, [OPTIM.LinearLR(o, 0.2, total_iters=4), OPTIM.CosineAnnealingLR(o, T_max=8)], [4]
            ),
        ),
    ],
)
def test_the_factors_are_those_of_torchs_schedulers_with_one_step_a_round(schedule, theirs):
    ours = [schedule_factor(ScheduleConfig(**schedule), r, 12) for r in range(1, 13)]
    assert ours == pytest.approx(by_torch(theirs, 12), abs=1e-12)


def test_the_protocol_of_scope_and_fedcs():
    """.0025 rising to .0125 over 20 rounds, then half a cosine to 0 at round 200."""
    cfg = config("rounds=200", "local.lr=0.0125", "local.schedule={name: cosine, warmup: 20, start: 0.2}")
    lr = [learning_rate(cfg, r) for r in range(1, 201)]
    assert lr[0] == pytest.approx(0.0025)
    assert lr[20] == pytest.approx(0.0125)
    assert max(lr) == lr[20]
    assert 0 < lr[-1] < 1e-5


def test_a_cycle_from_fresh_weights_begins_its_schedule_again():
    """FairFAL: x .1 once the round of a cycle is above 75; without fresh weights the run is one training."""
    words = ("rounds=300", "strategy=fairfal", "strategy.fairfal.cycles=3", "local.lr=0.01")
    step = "local.schedule={name: step, milestones: [75], gamma: 0.1}"
    again = config(*words, step)
    found = [learning_rate(again, r) for r in (1, 75, 76, 100, 101, 175, 176, 300)]
    assert found == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.01, 0.01, 0.001, 0.001])
    once = config(*words, step, "strategy.fairfal.restart=false")
    assert [learning_rate(once, r) for r in (75, 76, 101, 300)] == pytest.approx([0.01, 0.001, 0.001, 0.001])


def test_a_name_alone_is_a_schedule_and_a_constant_one_leaves_old_hashes_valid():
    assert config("local.schedule=cosine").local.schedule == ScheduleConfig(name="cosine")
    assert config_sha(config("local.schedule=constant")) == config_sha(config())
    words = ["local.schedule=cosine", "local.label_smoothing=0.1", "local.max_grad_norm=10"]
    words += ["aggregator=fedavgm server_schedule=cosine", "local.nesterov=true local.momentum=0.9"]
    words += ["local.decay_exempt=[bias] local.weight_decay=0.1"]
    assert len({config_sha(config(*word.split())) for word in words} | {config_sha(config())}) == len(words) + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["local.schedule=warm"], "local.schedule.name='warm': not a valid name"),
        (["local.schedule.name=step"], "expected milestones with name=step"),
        (["local.schedule={name: step, milestones: [1]}"], "expected gamma with name=step"),
        (["local.schedule={name: step, milestones: [2, 1], gamma: 0.1}"], "milestones in rising order"),
        (["local.schedule.milestones=[2]"], "no milestones with name=constant"),
        (["local.schedule={name: cosine, gamma: 0.1}"], "no gamma with name=cosine"),
        (["local.schedule.warmup=2"], "warmup and start together"),
        (["local.schedule={name: step, milestones: [2, 3], gamma: 0.1}"], r"3 is not before the end of rounds=3"),
        (["local.schedule={name: cosine, warmup: 3, start: 0.1}"], "the warm-up would not end before rounds=3"),
        (
            [
                *("rounds=6", "strategy=active", "strategy.active.cycles=3"),
                "local.schedule={name: step, milestones: [2], gamma: 0.1}",
            ],
            "the 2 rounds of a cycle of strategy 'active'",
        ),
        (["server_schedule=cosine"], "aggregator 'fedavg' has none; use aggregator=fedadagrad or fedadam"),
        (["aggregator=qfedavg", "local.schedule=cosine"], "'qfedavg' computes with one local learning rate"),
        (["local.nesterov=true"], "set local.optimizer=sgd and local.momentum above 0"),
        (["local.nesterov=true", "local.momentum=0.9", "aggregator=fednova"], "'fednova' computes with heavy-ball"),
        (["local.decay_exempt=[norm]"], "exempts from local.weight_decay, which is 0"),
        (["local.max_grad_norm=0"], "local.max_grad_norm=0: expected more than 0"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused_with_its_remedy(words, message):
    with pytest.raises(ConfigError, match=message):
        config(*words)
