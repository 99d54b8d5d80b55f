"""The work with pfl-research: ``python with_pfl.py FOLDER OUT`` in an environment with pfl and torch.

Federated averaging weighted by rows, as its documentation builds it: a `FederatedDataset`, `SimulatedBackend` and
`FederatedAveraging`, one process. Its data sets do not shuffle, so a client's batches are the same in every epoch.
In its first round pfl evaluates each client before and after training, which no setting turns off.
"""

import itertools
import sys

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch.nn.functional import cross_entropy
from work import Work


def main(folder: str, out: str) -> None:
    work = Work(folder)
    net = work.model()

    class Rounds(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            work.round_done()
            return False, Metrics()

    class Net(torch.nn.Module):
        """The model with the two functions that pfl calls."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def loss(self, x, y):
            work.steps += 1
            return cross_entropy(self.net(x), y)

        @torch.no_grad()
        def metrics(self, x, y):
            return {"loss": Weighted(float(cross_entropy(self.net(x), y)) * len(y), len(y))}

    held: dict[int, PyTorchTensorDataset] = {}

    def dataset(client: int) -> PyTorchTensorDataset:
        if client not in held:
            held[client] = PyTorchTensorDataset(work.data(client), user_id=str(client))
        return held[client]

    order = itertools.chain.from_iterable(work.cohorts)
    clients = FederatedDataset(dataset, lambda: next(order))
    momentum, decay = work.optimiser["momentum"], work.optimiser["weight_decay"]
    wrapped = Net()
    model = PyTorchModel(
        wrapped,
        lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay),
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds,
            train_cohort_size=len(work.cohorts[0]),
            val_cohort_size=None,
        ),
        SimulatedBackend(clients, clients, [WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_num_epochs=work.epochs,
            local_learning_rate=work.optimiser["lr"],
            local_batch_size=work.batch_size,
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Rounds()],
    )
    work.found(net, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
