"""The stock strategies of Flower 1.41 by name. fedimb samples the cohort, so they are configured to use all clients.

Flags: ``linear`` (the result depends on the replies only through their weighted mean, so lanes may sum),
``from_sum`` (the same of the sums of regions: it reads no figure of a single client, ``clients.regions``),
``by_array`` (each array of the result follows from the clients' values of that array and their weights alone),
``needs_start_loss`` (the client reports the loss of the model it received), ``server_lr`` (the attribute that is its
learning rate, which ``server_schedule`` changes), ``reads_local_lr`` (it computes with the clients' learning rate),
``mirrors`` (arguments that must be what ``local`` says).
"""

from typing import Annotated, Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedimb.registry import register
from fedimb.registry.arguments import Count, Decay, NonNegative, Positive, PositiveCount, Range

_EVERYONE: dict[str, Any] = {
    "fraction_train": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}


@register("aggregator", "fedavg", linear=True, any_pace=True, by_array=True, from_sum=True)
def fedavg() -> Strategy:
    """FedAvg: the mean of the clients' weights, by their rows.

    McMahan et al., AISTATS 2017, algorithm 1.
    """
    return flower.FedAvg(**_EVERYONE)


@register("aggregator", "fedprox", linear=True, any_pace=True, by_array=True, from_sum=True)
def fedprox(proximal_mu: NonNegative) -> Strategy:
    """FedProx: FedAvg, with a proximal term in the clients' loss.

    Li et al., MLSys 2020; the proximal term itself is the local objective ``proximal``.
    """
    return flower.FedProx(**_EVERYONE, proximal_mu=proximal_mu)


@register(
    "aggregator", "fedavgm", linear=True, any_pace=True, by_array=True, from_sum=True, server_lr="server_learning_rate"
)
def fedavgm(server_learning_rate: Positive = 1.0, server_momentum: Decay = 0.9) -> Strategy:
    """FedAvgM: FedAvg with momentum at the server.

    Hsu et al. 2019 (arXiv 1909.06335): server momentum.
    """
    return flower.FedAvgM(**_EVERYONE, server_learning_rate=server_learning_rate, server_momentum=server_momentum)


@register("aggregator", "fedadam", linear=True, any_pace=True, by_array=True, from_sum=True, server_lr="eta")
def fedadam(eta: Positive = 0.01, beta_1: Decay = 0.9, beta_2: Decay = 0.99, tau: Positive = 1e-3) -> Strategy:
    """FedAdam: Adam at the server, on the clients' mean update.

    Reddi et al., ICLR 2021, algorithm 2. ``eta``: server learning rate.
    """
    return flower.FedAdam(**_EVERYONE, eta=eta, beta_1=beta_1, beta_2=beta_2, tau=tau)


@register("aggregator", "fedadagrad", linear=True, any_pace=True, by_array=True, from_sum=True, server_lr="eta")
def fedadagrad(eta: Positive = 0.01, tau: Positive = 1e-3) -> Strategy:
    """FedAdagrad: Adagrad at the server, on the clients' mean update.

    Reddi et al., ICLR 2021, algorithm 2. ``eta``: server learning rate.
    """
    return flower.FedAdagrad(**_EVERYONE, eta=eta, tau=tau)


@register("aggregator", "fedyogi", linear=True, any_pace=True, by_array=True, from_sum=True, server_lr="eta")
def fedyogi(eta: Positive = 0.01, beta_1: Decay = 0.9, beta_2: Decay = 0.99, tau: Positive = 1e-3) -> Strategy:
    """FedYogi: Yogi at the server, on the clients' mean update.

    Reddi et al., ICLR 2021, algorithm 2. ``eta``: server learning rate.
    """
    return flower.FedYogi(**_EVERYONE, eta=eta, beta_1=beta_1, beta_2=beta_2, tau=tau)


@register("aggregator", "fedmedian", linear=False, by_array=True)
def fedmedian() -> Strategy:
    """The coordinate-wise median of the clients' weights, robust to outliers.

    Yin et al., ICML 2018: coordinate-wise median.
    """
    return flower.FedMedian(**_EVERYONE)


@register("aggregator", "fedtrimmedavg", linear=False, by_array=True)
def fedtrimmedavg(beta: Annotated[float, Range(0, 0.5, high_allowed=False)] = 0.2) -> Strategy:
    """The coordinate-wise trimmed mean of the clients' weights, robust to outliers.

    Yin et al., ICML 2018: coordinate-wise trimmed mean; ``beta`` in [0, 0.5) is trimmed at each end.
    """
    return flower.FedTrimmedAvg(**_EVERYONE, beta=beta)


@register("aggregator", "krum", linear=False)
def krum(num_malicious_nodes: Count = 0) -> Strategy:
    """Krum: the one update that is closest to its neighbours, robust to malicious clients.

    Blanchard et al., NeurIPS 2017.
    """
    return flower.Krum(**_EVERYONE, num_malicious_nodes=num_malicious_nodes)


@register("aggregator", "multikrum", linear=False)
def multikrum(num_malicious_nodes: Count = 0, num_nodes_to_select: PositiveCount = 5) -> Strategy:
    """Multi-Krum: the mean of the updates that are closest to their neighbours.

    Blanchard et al., NeurIPS 2017: mean of the ``num_nodes_to_select`` best-scored updates.
    """
    return flower.MultiKrum(
        **_EVERYONE, num_malicious_nodes=num_malicious_nodes, num_nodes_to_select=num_nodes_to_select
    )


@register("aggregator", "bulyan", linear=False)
def bulyan(num_malicious_nodes: Count = 0) -> Strategy:
    """Bulyan: Krum, then a trimmed mean; robust to malicious clients.

    El Mhamdi et al., ICML 2018; needs at least 4 f + 3 replies, else the round leaves the model unchanged.
    """
    return flower.Bulyan(**_EVERYONE, num_malicious_nodes=num_malicious_nodes)


@register(
    "aggregator",
    "qfedavg",
    linear=False,
    needs_start_loss=True,
    reads_local_lr=True,
    mirrors={"client_learning_rate": "lr"},
)
def qfedavg(client_learning_rate: Positive, q: NonNegative = 0.1) -> Strategy:
    """q-FedAvg: clients with a higher loss weigh more, for a fairer model.

    Li et al., ICLR 2020, algorithm 2. Its F_k(w^t) is the loss of the *received* model (``start_loss``).
    """
    return flower.QFedAvg(client_learning_rate=client_learning_rate, q=q, train_loss_key="start_loss", **_EVERYONE)
