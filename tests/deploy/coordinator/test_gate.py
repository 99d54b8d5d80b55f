"""The gate: who signed a message, as the SuperLink would judge it, before anything of the message is read."""

import time
from pathlib import Path

import pytest
from behind_nginx import signed
from coordinator import make_deployment, make_node

from fedimb.deploy.coordinator import gate, sites
from fedimb.deploy.coordinator.deployment import Deployment


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def deployment(place: Path) -> Deployment:
    made = make_deployment(place / "d")
    sites.add_site(made, make_node(made, place / "st-anna"))
    make_node(made, place / "stranger")
    return made


def _refusal(deployment: Deployment, headers: dict[str, str]) -> str | None:
    return gate.Gate(deployment.file("sites")).refusal(headers, time.time())


def test_its_clock_and_headers_are_flowers() -> None:
    from flwr.common import constant
    from flwr.supercore import constant as more

    assert (gate.OLDEST_S, gate.AHEAD_S) == (
        constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE,
        constant.SYSTEM_TIME_TOLERANCE,
    )
    assert (*(more.FLEET_HTTP_PUBLIC_KEY_HEADER, constant.TIMESTAMP_HEADER, more.FLEET_HTTP_SIGNATURE_HEADER),) == (
        gate.PUBLIC_KEY,
        gate.TIMESTAMP,
        gate.SIGNATURE,
    )


def test_what_flowers_node_sends_passes(deployment: Deployment, place: Path) -> None:
    import httpx
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supercore.protobuf.client import ProtobufRequestContext
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key((place / "st-anna" / "key").read_bytes(), None)
    request = httpx.Request("POST", "https://localhost/")
    context = ProtobufRequestContext("", None, request)  # type: ignore[arg-type]
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda _: httpx.Response(200))  # type: ignore
    sent = {name: value for name, value in request.headers.items() if name.startswith("flwr-")}
    assert _refusal(deployment, sent) is None
    ours = signed(place / "st-anna" / "key")
    assert {name for name in ours if name.startswith("flwr-")} == sent.keys()
    assert ours["flwr-public-key"] == sent["flwr-public-key"]
    assert _refusal(deployment, ours) is None


@pytest.mark.parametrize(("ahead", "passes"), [(-300, True), (-310, False), (4, True), (7, False)])
def test_clocks_may_be_as_far_apart_as_the_superlink_lets_them(
    deployment: Deployment, place: Path, ahead: float, passes: bool
) -> None:
    refusal = _refusal(deployment, signed(place / "st-anna" / "key", ahead))
    assert (refusal is None) == passes
    if not passes:
        assert f" s {'ahead of' if ahead > 0 else 'behind'} the coordinator's" in str(refusal)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flwr-public-key": ""}, "not signed by a node"),
        ({"flwr-signature": ""}, "not signed by a node"),
        ({"flwr-timestamp": ""}, "not signed by a node"),
        ({"flwr-public-key": "QUJD"}, "not registered here"),
        ({"flwr-signature": "QUJD"}, "not this key's"),
        ({"flwr-signature": "no base64 {}"}, "not this key's"),
        ({"flwr-timestamp": "2026-01-01T00:00:00+00:00"}, "not this key's"),  # another time than the signed one
        ({"flwr-timestamp": "gestern ü"}, "not this key's"),
    ],
)
def test_headers_that_were_made_up_are_refused_in_ascii(
    deployment: Deployment, place: Path, change: dict[str, str], says: str
) -> None:
    refusal = _refusal(deployment, signed(place / "st-anna" / "key") | change)
    assert says in str(refusal)
    assert gate._reply(refusal).decode("ascii").count('"') == 0  # it is put into JSON and into a log


def test_a_time_without_offset_or_a_word_that_a_site_signed_itself_is_refused(
    deployment: Deployment, place: Path
) -> None:
    from base64 import b64encode

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    key = load_ssh_private_key((place / "st-anna" / "key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for stamp in ("2026-01-01T00:00:00", "morgen", "99999-01-01"):
        signature = b64encode(key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))).decode()
        headers = signed(place / "st-anna" / "key") | {"flwr-timestamp": stamp, "flwr-signature": signature}
        assert _refusal(deployment, headers) is not None


def test_sites_come_and_go_and_a_broken_join_file_keeps_out_its_own_site_only(
    deployment: Deployment, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    door = gate.Gate(deployment.file("sites"))
    join = make_node(deployment, place / "va")
    anna, va = place / "st-anna" / "key", place / "va" / "key"
    assert door.refusal(signed(va), time.time()) == gate.UNKNOWN
    sites.add_site(deployment, join)
    assert door.refusal(signed(va), time.time()) is None
    deployment.file("sites", "wien.join.json").write_text("{", "utf-8")
    assert door.refusal(signed(anna), time.time()) is None
    assert "wien.join.json was left out" in capsys.readouterr().out
    deployment.file("sites", "wien.join.json").unlink()
    sites.remove_site(deployment, "va")
    assert door.refusal(signed(va), time.time()) == gate.UNKNOWN
    assert door.refusal(signed(anna), time.time()) is None
