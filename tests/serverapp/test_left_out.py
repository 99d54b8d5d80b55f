"""Which replies were refused, who is set aside for it, and that a resumed run knows both."""

import pytest

from fedimb.engine.record_checks import Refusal
from fedimb.errors import ConfigError
from fedimb.serverapp.left_out import MOST, LeftOut, by_client, read_left_out, set_aside

FAULT = Refusal("x.sums", "sums", "is not finite")
SITES = ("linz", "va")


def test_three_refused_replies_set_a_client_aside_from_the_next_message_on(tmp_path):
    lines = []
    found = LeftOut(tmp_path, SITES, lambda **line: lines.append(line))
    for message in range(1, MOST + 1):
        assert found.aside(message) == {}
        found.add(message, f"round {message}", 1, FAULT, signed=True)
    assert list(found.aside(MOST + 1)) == [1]
    assert [line["event"] for line in lines] == ["left out"] * 3 + ["set aside"]
    again = LeftOut(tmp_path, SITES)
    again.add(2, "round 2", 1, FAULT, signed=True)  # the same message, after a resume
    assert again.replies == found.replies == read_left_out(tmp_path / "left_out.jsonl")
    assert again.aside(MOST) == {}
    assert list(again.aside(MOST + 1)) == [1]
    assert by_client(again.replies) == {"va": 3}
    assert str(again.replies[0]) == "round 1: va: record 'x.sums', 'sums': is not finite"


@pytest.mark.parametrize(
    ("fault", "signed"),
    [(FAULT, False), (Refusal("x", "", "", not_finite=True), True), (Refusal("x", "", "", counts=False), True)],
)
def test_what_its_sender_is_not_known_for_or_may_not_intend_never_sets_it_aside(fault, signed):
    found = LeftOut(None, SITES)
    for message in range(10):
        found.add(message, "a round", 0, fault, signed)
    assert len(found.replies) == 10
    assert found.aside(10) == {}


def test_a_person_sets_a_site_aside(tmp_path):
    set_aside(tmp_path, SITES, "va", "the hospital left")
    set_aside(tmp_path, SITES, "va", "again")
    found = LeftOut(tmp_path, SITES)
    assert found.aside(0) == {1: "set aside: the hospital left"}
    assert [one["reason"] for one in found.facts()] == ["the hospital left"]
    with pytest.raises(ConfigError, match=r"no site 'vaa' in this run\. Did you mean 'va'"):
        set_aside(tmp_path, SITES, "vaa", "")
