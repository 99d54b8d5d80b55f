"""A real client on a real table behind a node's door: what identifies patients is in no byte that leaves."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from study_plans import node_home, run_config

from fedimb.clientapp.runtime import ClientRuntime
from fedimb.clientapp.state import StateStore
from fedimb.contracts import platform as names
from fedimb.data.prepare import prepare
from fedimb.deploy.site.egress_filter import Terms, egress_filter
from fedimb.engine.flower_private import ensure_identity
from fedimb.records import array_record, pack

CANARIES = ("Bärbel-Zwölf", "kanarisch", "Gelbsucht-Q", "geheim-Tabelle", "Hafenarzt")


def spelt(data: bytes) -> list[str]:
    """The canaries found in any encoding a file or a message might use."""
    return [word for word in CANARIES for code in ("utf-8", "utf-16-le", "latin-1") if word.encode(code) in data]


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Sends a message of this type through the door to a client of the table; the bytes of its answer."""
    ensure_identity()
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = [
        f"Bärbel-Zwölf-{i // 2},{rng.normal():.4f},{'kanarisch' if i % 3 else 'blau'},"
        f"{'Gelbsucht-Q' if i % 4 == 0 else 'gesund'}"
        for i in range(80)
    ]
    table = tmp_path / "geheim-Tabelle.csv"
    table.write_text("\n".join(["Hafenarzt,wert,farbe,befund", *rows]) + "\n", encoding="utf-8")
    config = run_config(
        "data=tabular_csv", f"data.source.files=['{table}']", "data.source.target=befund", "clients.count=1",
        "data.source.patient=Hafenarzt", "data.source.categorical=[farbe]", "local.epochs=1", "partition=iid",
    )  # fmt: skip
    federation = prepare(config.data, config.partition, 1, config.seed)
    runtime = ClientRuntime(
        config, federation.client, StateStore(tmp_path / "state"), federation.n_classes, federation.input_shape
    )
    home = node_home(tmp_path / "home")
    weights = {name: p.detach().numpy() for name, p in runtime.model.named_parameters()}
    step = {"round": 1, "step": 1, "state-base": 0, "state-keep": 0}

    def ask(kind, **more):
        content = {
            "arrays": array_record(weights),
            names.STEP: ConfigRecord(step),
            names.PRIOR: array_record({"counts": np.ones(2)}),
        }
        message = Message(RecordDict(content | more), dst_node_id=1, message_type=kind)
        reply = egress_filter(
            home,
            lambda *_: Terms(runtime.contracts, run="s0"),
            message,
            Context(1, 1, {}, RecordDict(), {}),
            lambda asked, _: runtime.handle(asked, 0),
        )
        if reply.has_error():
            return True, f"{reply.error.code} {reply.error.reason} {vars(reply.metadata)}".encode()
        return False, pack(reply.content) + str(vars(reply.metadata)).encode()

    ask.home, ask.runtime = home, runtime
    return ask


def test_no_canary_in_any_reply(answering):
    for kind, more in (
        ("train", {}),
        ("query.class_counts", {"view": ConfigRecord({"name": "train"})}),
    ):
        failed, data = answering(kind, **more)
        assert not failed, data
        assert spelt(data) == []


def test_no_canary_in_an_error_and_all_of_it_at_the_site(answering, monkeypatch):
    def broken(*_):
        raise ValueError(f"could not convert string to float: '{', '.join(CANARIES)}'")

    monkeypatch.setattr(answering.runtime, "_data_of", broken)
    answering.runtime._data.clear()
    failed, data = answering("train")
    assert failed
    assert spelt(data) == []
    [kept] = answering.home.file("logs", "incidents").iterdir()
    assert set(spelt(kept.read_bytes())) == set(CANARIES)
    assert spelt(answering.home.file("audit.jsonl").read_bytes()) == []
