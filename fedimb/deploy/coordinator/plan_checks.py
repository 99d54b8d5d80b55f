"""Refuse, before any site is asked, what a simulation would refuse before its first round.

Otherwise a run could fail halfway, or end without any scores, after people have read and approved its plan.
"""

from typing import Any, cast

from fedimb.data.groups import SplitConfig
from fedimb.data.subgroups import group_names, parse_subgroups
from fedimb.deploy.coordinator.federation import DeployedFederation, declared_labels
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError, DataError
from fedimb.schema import RunConfig


def check_parts(plan: StudyPlan, config: RunConfig) -> None:
    """Refuse parts that cannot work together, as far as that can be checked without any site's rows.

    Args:
        plan: gives classes and input shape.
        config: the configuration of a run under this plan.

    Raises:
        ConfigError: names the part, what is wrong with it, and what to set instead.
    """
    import numpy as np

    from fedimb.config.parts import UNSEEN, check_client_parts
    from fedimb.config.validate import check_task
    from fedimb.serverapp.aggregator import chain
    from fedimb.serverapp.assemble import build_method, check_head, check_networks, needs_counts
    from fedimb.serverapp.class_prior import check_prior
    from fedimb.serverapp.client_sampler import ClientSampler
    from fedimb.serverapp.client_scores import check_scores
    from fedimb.serverapp.explanations import check_explanations
    from fedimb.serverapp.pacing import pacing_of
    from fedimb.serverapp.temperature import check_taus

    if (test := config.data["test"]["name"]) != "none":
        raise ConfigError(
            f"data.test={{name: {test}}} does not work in a deployment, where each site scores on its own rows: set "
            '"data.test={name: none}" and, for example, data.validation=0.2'
        )
    if SplitConfig.parse(config.data.get("split")).clients:
        raise ConfigError(
            "data.split.clients=true does not work in a deployment, where no one sees two sites' rows: leave it out; "
            "data.split.group keeps groups together within each site"
        )
    _check_subgroups(plan, config)
    count = config.clients.count
    one_each = [1] * count
    labels = declared_labels(config, plan, one_each, [0] * count)
    unseen = DeployedFederation(plan, [], [""] * count, one_each, one_each, None, 1.0, [], labels)
    check_task(config, unseen.task, unseen.unknown_rule)
    check_scores(config, unseen.task, unseen.unknown_labels)
    check_taus(config, unseen, deployed=True)
    check_explanations(config, unseen)
    check_networks(config, unseen)
    check_client_parts(config, np.ones(unseen.n_classes, np.int64), unseen.input_shape, UNSEEN)
    check_head(config, unseen)
    pacing_of(config, unseen, ClientSampler(config.clients, config.seed, unseen.train_sizes), 0, live=True)
    methods = chain(build_method(config, count)[0])[:-1]  # the last is the aggregator
    rounds = config.rounds
    for name, method in zip(config.strategy, methods, strict=True):
        cast(Any, method).check(rounds)
        rounds = cast(Any, method).inner_rounds(rounds)
        _check_server(name, method, config, unseen)
    if needs_counts(config):
        # Only the sites know whether their rows name patients, which prior.clip needs: they check it when they join.
        prior = config.prior.model_copy(update={"clip": None})
        check_prior(config.model_copy(update={"prior": prior}), unseen)


def _check_subgroups(plan: StudyPlan, config: RunConfig) -> None:
    subgroups = parse_subgroups(config.data.get("subgroups"))
    if subgroups and config.evaluation.subgroup_floor is None:
        raise ConfigError(
            "data.subgroups without a floor would show cells of single patients: set evaluation.subgroup_floor=10"
        )
    group_names(subgroups, [site.name for site in plan.sites])


def _check_server(name: str, method: Any, config: RunConfig, unseen: DeployedFederation) -> None:
    from fedimb.serverapp.server import Server

    try:
        method.check_server(Server(config, unseen))
    except DataError as error:
        raise ConfigError(
            f"strategy '{name}' as configured needs rows at the server (data.public), and the coordinator of a "
            f"deployment has none; choose strategy.{name} settings that do not need them"
        ) from error
