from pathlib import Path

from fedimb import registry
from fedimb.config.combinations import RULES, Combination, matrix, refusal


def _parts(*names: tuple[str, str]) -> tuple[registry.Entry, ...]:
    return tuple(registry.get(kind, name) for kind, name in names)


def test_no_rule_refuses_the_empty_combination() -> None:
    assert {rule(Combination((), provenance)) for rule in RULES for provenance in (None, "none", "local")} == {None}


def test_double_correction_needs_both(toys: list[Path]) -> None:
    shift, post, plain = ("loss", "toy_shift"), ("calibration", "toy_post"), ("loss", "toy_plain")
    assert refusal(Combination(_parts(shift))) is None
    assert refusal(Combination(_parts(plain, post))) is None
    assert "double correction" in (refusal(Combination(_parts(shift, post))) or "")


def test_a_prior_is_asked_for_only_when_refused(toys: list[Path]) -> None:
    part = _parts(("calibration", "toy_post"))
    assert refusal(Combination(part, "clear_sum")) is None
    assert refusal(Combination(part, None)) is None
    assert "needs class counts" in (refusal(Combination(part, "none")) or "")


def test_the_matrix_says_what_refusal_says(toys: list[Path]) -> None:
    cells = matrix()
    seen = {frozenset((cell.first, cell.second)) for cell in cells}
    assert len(seen) == len(cells)
    for cell in cells:
        assert cell.reason == refusal(Combination(_parts(cell.first, cell.second)))
    refused = {(cell.first[1], cell.second[1]) for cell in cells if cell.reason}
    assert {("toy_shift", "toy_post"), ("toy_b", "toymedian"), ("toy_a", "toy_c")} <= refused
    assert ("balanced_softmax", "la_post") in refused
    assert ("ce", "la_post") not in refused
