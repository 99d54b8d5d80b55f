"""The work with Flower's simulation and an app of its own: ``python with_flower.py FOLDER OUT CPUS``.

The app has the parts of Flower's PyTorch quickstart: a ClientApp that builds the model for every message, loads the
state dict it was sent, trains over a shuffling DataLoader and answers with a state dict; FedAvg weighted by
``num-examples``. Evaluation at clients is off. One thing is added: each message names the client that is to train, so
that the clients of every round are those of the work. Started by ``run_simulation``, without a SuperLink.
"""

import os
import sys
import traceback

from flower_app import client_app, flower_work
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


class NamedClients(FedAvg):
    """FedAvg that says in each message which client trains, and counts the clients' steps."""

    def __init__(self, folder: str) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.work, self.folder = flower_work(folder), folder

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid):
        cohort = self.work.cohorts[server_round - 1]
        for client, node in zip(cohort, list(grid.get_node_ids())[: len(cohort)], strict=True):
            named = ConfigRecord({"folder": self.folder, "client": client, "server-round": server_round})
            content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: named})
            yield Message(content=content, message_type=MessageType.TRAIN, dst_node_id=node)

    def aggregate_train(self, server_round: int, replies):
        answers = list(replies)
        for answer in answers:
            if answer.has_error():
                raise RuntimeError(f"round {server_round}: a client failed: {answer.error.reason}")
            self.work.steps += int(answer.content["metrics"]["steps"])
        return super().aggregate_train(server_round, answers)


def main(folder: str, out: str, cpus: int) -> None:
    server = ServerApp()
    work = flower_work(folder)

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        model = work.model()

        def after(server_round: int, arrays: ArrayRecord) -> None:
            if server_round:
                work.round_done()

        result = NamedClients(folder).start(
            grid, ArrayRecord(model.state_dict()), num_rounds=work.rounds, evaluate_fn=after
        )
        model.load_state_dict(result.arrays.to_torch_state_dict())
        work.found(model, out)

    backend = {"init_args": {"num_cpus": cpus}, "client_resources": {"num_cpus": 1, "num_gpus": 0}}
    try:
        run_simulation(server, client_app, num_supernodes=work.clients, backend_config=backend)
    except RuntimeError:  # Flower's threads would keep the process alive
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
