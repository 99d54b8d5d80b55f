"""A client's explanations of the received model on its own rows; what is about single rows stays in its folder."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedimb import registry
from fedimb.atomic import named_errors, write_atomic
from fedimb.clientapp.context import ClientContext
from fedimb.config.parts import build_model
from fedimb.contracts import platform as names
from fedimb.errors import FedimbError
from fedimb.explanations.base import ClientArrays, ClientRows, Explained, Explanation
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier
from fedimb.records import array_record, pack
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, seed_int

QUERIES = (names.EXPLAIN,)
FOLDER = "explanations"
"""Folder of what stays at the client, within its own folder."""
ACCOUNT = "sent.jsonl"
"""In it: a line for each reply with explanations: when, over how many rows, which arrays, and their hash."""


def explanations_of(config: RunConfig) -> dict[str, Explanation]:
    """The explanations that a configuration asks for, by name."""
    chosen = {name: args or {} for name, args in config.explanation.items() if name != "none"}
    return {name: registry.build("explanation", name, **args) for name, args in chosen.items()}


def answer_query(query: str, content: RecordDict, context: ClientContext, folder: Path) -> RecordDict:
    """The client's reply to `QUERIES`: ``x.explained`` and ``x.explained_overall``, arrays as ``<name>/<what>``.

    What is explained, and with which floor, is the client's configuration's, not the message's.

    Args:
        folder: the client's own, for what is about single rows.

    Raises:
        FedimbError: the configuration asks for no explanation.
    """
    parts = explanations_of(context.config)
    if not parts:
        raise FedimbError("this run's configuration asks for no explanation: set explanation=NAME")
    rows, numbers = _rows(context)
    by_class: dict[str, NDArray[Any]] = {}
    overall: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        part.check(rows.model, rows.layout, context.data.task, rows.class_names)
        found = part.at_client(rows)
        by_class |= {f"{name}/{what}": array for what, array in found.by_class.items()}
        overall |= {f"{name}/{what}": array for what, array in found.overall.items()}
        _keep(folder / FOLDER, name, found, numbers, rows)
    sent = {names.EXPLAINED: by_class, names.EXPLAINED_OVERALL: overall}
    reply = RecordDict({key: array_record(arrays) for key, arrays in sent.items() if arrays})
    _account(folder / FOLDER, context, parts, by_class, reply)
    return reply


def _account(
    folder: Path, context: ClientContext, parts: Mapping[str, Explanation], by_class: ClientArrays, reply: RecordDict
) -> None:
    """Append what leaves to the client's own list, on disk before the reply is given on.

    At a hospital the node's ledger counts the message and its audit log has a line too; a simulated client has only
    this.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = folder / ACCOUNT
    number = len(place.read_text(encoding="utf-8").splitlines()) if place.exists() else 0
    rows = {name: int(by_class[f"{name}/rows"].sum()) for name in parts if f"{name}/rows" in by_class}
    shapes = {f"{key}/{n}": list(a.shape) for key, one in reply.array_records.items() for n, a in one.items()}
    sha = hashlib.sha256(pack(reply)).hexdigest()
    about = {"number": number, "step": context.step, "rows": rows, "records": shapes, "sha256": sha}
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **about}) + "\n"
    with named_errors(place), place.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(place, 0o600)


def _rows(context: ClientContext) -> tuple[ClientRows, NDArray[np.int64]]:
    """The training rows whose class is known, on the CPU, and their numbers in the store."""
    data, config = context.data, context.config
    view = data.known_view
    numbers = data.rows(view)
    store = data.store
    shape = store.input_shape
    x, held_out = data.tensors(view)[0].cpu(), data.tensors("validation")[0].cpu()
    y, classes = data.primary(view).cpu().numpy(), store.n_classes
    known = (y >= 0) & (y < classes)  # neither a coarse label nor a row of which no label is known
    if not known.all():
        x, y, numbers = x[torch.from_numpy(known)], y[known], numbers[known]

    def with_random_weights(k: int) -> Classifier:
        return _drawn(config, classes, shape, k)

    model = context.model
    if next(model.parameters()).device.type != "cpu":  # captum and the draws of a client are on the CPU
        model = build_model(config, classes, shape)
        model.load_state_dict({key: value.cpu() for key, value in context.model.state_dict().items()})
    layout = InputLayout.of(shape, model, store.columns, data.scaling, store.scale)
    people = numbers if store.patients is None else np.asarray(store.patients)[numbers].astype(np.int64)
    rows = ClientRows(
        model=model.eval(),
        x=x,
        y=y,
        people=people,
        held_out=held_out,
        class_names=store.class_names,
        layout=layout,
        seed=seed_int(config.seed, Stream.EXPLANATION, 0, context.client),
        with_random_weights=with_random_weights,
    )
    return rows, numbers


def _drawn(config: RunConfig, classes: int, shape: tuple[int, ...], k: int) -> Classifier:
    """The run's model with weights drawn for the sanity check, the same at every client."""
    other = config.model_copy(update={"seed": seed_int(config.seed, Stream.EXPLANATION, 1 + k)})
    return build_model(other, classes, shape).eval()


def _keep(folder: Path, name: str, found: Explained, numbers: NDArray[np.int64], rows: ClientRows) -> None:
    """Write what is about single rows, for the client's own people: readable by the owner alone."""
    if not found.private and len(found.text) <= 1:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files: dict[str, bytes] = {}
    if found.private:
        index = found.private["index"]
        about = {"row": numbers[index], "class": rows.y[index], "input": rows.x[index].numpy()}
        files[f"{name}.npz"] = _npz(about | {k: v for k, v in found.private.items() if k != "index"})
        if rows.layout.kind == "picture":
            files |= _pictures(name, found, numbers, rows)
    if len(found.text) > 1:
        # The first cell of a line is the position among the client's rows: people look for the row itself.
        lines = [found.text[0], *(_numbered(line, numbers) for line in found.text[1:])]
        files[f"{name}.csv"] = ("\n".join(lines) + "\n").encode()
    for file, content in files.items():
        write_atomic(folder / file, content)
        os.chmod(folder / file, 0o600)


def _numbered(line: str, numbers: NDArray[np.int64]) -> str:
    first, _, rest = line.partition(",")
    return f"{numbers[int(first.strip(chr(34)))]},{rest}"


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    import io

    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _pictures(name: str, found: Explained, numbers: NDArray[np.int64], rows: ClientRows) -> dict[str, bytes]:
    """Each kept row beside its map, as PNG; none where Pillow is missing or the rows have not 1 or 3 channels."""
    from importlib.util import find_spec

    from fedimb.annotation.thumbnails import png

    shape = rows.layout.shape
    if find_spec("PIL") is None or (len(shape) == 3 and shape[0] not in (1, 3)):
        return {}
    files = {}
    for place, i in enumerate(found.private["index"]):
        row = rows.x[i].numpy().reshape(-1, *shape[-2:])
        shown = torch.from_numpy(found.private["maps"][place])[None, None]
        heat = torch.nn.functional.interpolate(shown, size=shape[-2:])[0].numpy()
        heat = np.broadcast_to(heat / max(float(heat.max()), 1e-30), row.shape)
        low, high = float(row.min()), float(row.max())
        grey = (row - low) / max(high - low, 1e-30)
        files[f"{name}-row{numbers[i]}.png"] = png(np.concatenate([grey, heat], axis=-1), 1.0)
    return files
