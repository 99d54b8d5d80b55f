"""FedAvg under the name of the local objective that its clients use, so that settings and tables can name it.

The arguments are the local objective's: the aggregator's YAML passes them on under ``objectives``. The server only
averages.
"""

from typing import Literal

from flwr.serverapp.strategy import Strategy

from fedimb.aggregators.stock import fedavg
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, PositiveCount


@register("aggregator", "moon", linear=True, any_pace=True, by_array=True, from_sum=True)
def moon(mu: NonNegative = 1.0, temperature: Positive = 0.5) -> Strategy:
    """MOON: FedAvg, with a contrastive term in the clients' loss.

    Li et al., CVPR 2021; see `fedimb.training.objectives.moon`.
    """
    return fedavg()


@register("aggregator", "distil", linear=True, any_pace=True, by_array=True, from_sum=True)
def distil(
    weight: NonNegative = 1.0,
    temperature: Positive = 2.0,
    absent_only: bool = False,
    balance: Literal["none", "entropy", "complement"] = "none",
) -> Strategy:
    """FedAvg, with distillation from the received model in the clients' loss.

    Distillation from the received model; see `fedimb.training.objectives.distil`.
    """
    return fedavg()


@register("aggregator", "fedntd", linear=True, any_pace=True, by_array=True, from_sum=True)
def fedntd(weight: NonNegative = 1.0, temperature: Positive = 1.0) -> Strategy:
    """FedNTD: FedAvg, with distillation over the classes that a row does not belong to in the clients' loss.

    Lee et al., NeurIPS 2022; see `fedimb.training.objectives.not_true_distil`.
    """
    return fedavg()


@register("aggregator", "feddecorr", linear=True, any_pace=True, by_array=True, from_sum=True)
def feddecorr(weight: NonNegative = 0.1) -> Strategy:
    """FedDecorr: FedAvg, with a penalty on correlated features in the clients' loss.

    Shi et al., ICLR 2023; see `fedimb.training.objectives.decorrelate`.
    """
    return fedavg()


@register("aggregator", "fedgrab", linear=True, any_pace=True, by_array=True, from_sum=True)
def fedgrab(tail: PositiveCount = 3, kp: NonNegative = 10.0, ki: NonNegative = 0.01, kd: NonNegative = 0.1) -> Strategy:
    """Fed-GraB: FedAvg, with controllers at the clients that balance the gradients of the rarest classes (loss bce).

    Xiao et al., NeurIPS 2023; see `fedimb.training.objectives.gradient_balancer`.
    """
    return fedavg()


@register("aggregator", "balancefl", linear=True, any_pace=True, by_array=True, from_sum=True)
def balancefl(weight: NonNegative = 1.0, temperature: Positive = 2.0, entropy: NonNegative = 0.002) -> Strategy:
    """BalanceFL: FedAvg, with inheritance of the classes that a batch lacks and noise on the features of rare ones.

    Shuai et al., IPSN 2022; see `fedimb.training.objectives.inherit` and `fedimb.training.objectives.feature_noise`.
    """
    return fedavg()
