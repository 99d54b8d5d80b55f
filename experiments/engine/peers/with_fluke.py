"""The work with fluke: ``python with_fluke.py FOLDER OUT`` in an environment with fluke and torch.

Its own FedAVG over its `FastDataLoader`, clients weighted by rows. Two of its defaults are changed, or the work would
not be the same: clients keep no optimiser between rounds (``persistency``), and a last batch of one row is not left out
(``skip_singleton``). Nothing is evaluated before the last round.

fluke imports torchvision, whose package on the index is built for GPUs: beside torch for processors its compiled
operators are missing and its import fails at the first two. They are declared here before; nothing uses them.
"""

import sys

import torch

if torch.version.cuda is None:
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.config import OptimizerConfigurator
from fluke.data import FastDataLoader
from fluke.server import Server
from fluke.utils import FederationObserver
from work import Work


def main(folder: str, out: str) -> None:
    work = Work(folder)
    environment = FlukeENV()
    environment.set_seed(0)
    environment.set_device("cpu")
    environment.set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)

    class Loss(torch.nn.CrossEntropyLoss):
        def forward(self, logits, y):
            work.steps += 1
            return super().forward(logits, y)

    class Rounds(FederationObserver):
        def end_round(self, round):
            work.round_done()

    class Chosen(Server):
        """Asks the clients that the work names; fluke's own draws as many at random."""

        def get_eligible_clients(self, eligible_perc):
            return [self.clients[k] for k in work.cohorts[len(work.ends)]]

    optimiser = OptimizerConfigurator(DDict(name="SGD", **work.optimiser), DDict(name="StepLR", step_size=1, gamma=1))
    clients = [
        Client(
            index=k,
            train_set=FastDataLoader(
                *work.data(k),
                num_labels=work.classes,
                batch_size=work.batch_size,
                shuffle=True,
                skip_singleton=False,
            ),
            test_set=None,
            optimizer_cfg=optimiser,
            loss_fn=Loss(),
            local_epochs=work.epochs,
            persistency=False,
        )
        for k in range(work.clients)
    ]
    model = work.model()
    server = Chosen(model, None, clients, weighted=True)
    algorithm = FedAVG(len(clients), None, {}, clients=clients, server=server)
    algorithm.set_callbacks([Rounds()])
    algorithm.run(work.rounds, len(work.cohorts[0]) / len(clients))
    work.found(server.model, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
