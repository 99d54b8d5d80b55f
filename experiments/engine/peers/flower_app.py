"""The ClientApp of `with_flower.py`; a file of its own, because Ray's workers import it by name."""

from functools import lru_cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from work import Work

client_app = ClientApp()


@lru_cache(maxsize=1)
def flower_work(folder: str) -> Work:
    """The work, read once in a process, as the quickstart keeps its data set."""
    return Work(folder)


@client_app.train()
def training(message: Message, context: Context) -> Message:
    """Train the named client from the weights in the message."""
    settings = message.content["config"]
    work, client = flower_work(str(settings["folder"])), int(settings["client"])
    model = work.blank_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loader = DataLoader(TensorDataset(*work.data(client)), batch_size=work.batch_size, shuffle=True)
    optimiser = torch.optim.SGD(model.parameters(), **work.optimiser)
    model.train()
    steps = 0
    for _ in range(work.epochs):
        for x, y in loader:
            optimiser.zero_grad()
            cross_entropy(model(x), y).backward()
            optimiser.step()
            steps += 1
    figures = MetricRecord({"num-examples": work.rows(client), "steps": steps})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": figures})
    return Message(content=content, reply_to=message)
