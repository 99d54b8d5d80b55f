from pathlib import Path

import pytest

from fedimb import registry
from fedimb.config.combinations import RULES, Combination, matrix, refusal
from fedimb.config.validate import GIVEN


def _parts(*names: tuple[str, str]) -> tuple[registry.Entry, ...]:
    return tuple(registry.get(kind, name) for kind, name in names)


def test_no_rule_refuses_the_empty_combination() -> None:
    assert {rule(Combination((), provenance)) for rule in RULES for provenance in (None, "none", "local")} == {None}


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("attack=sign_flip strategy=c2tc", True),
        ("attack=label_flip strategy=oneround", True),
        ("attack=label_flip strategy=public strategy.public.use=only", True),
        ("attack=count_inflation strategy=c2tc calibration=la_post", True),  # which has a prior of its own
        ("attack=count_inflation strategy=oneround strategy.oneround.prior=data", True),
        ("attack=count_inflation strategy=oneround strategy.oneround.prior=data calibration=la_post", False),
        ("attack=sign_flip strategy=c2tc strategy.c2tc.use=init", False),
        ("attack=sign_flip strategy=oneround strategy.oneround.use=post", False),
        ("attack=sign_flip strategy=oneround strategy.oneround.use=init", False),
        ("attack=sign_flip strategy=public", False),
        ("attack=none strategy=c2tc", False),
    ],
)
def test_an_attack_needs_clients_that_train(words: str, refused: bool) -> None:
    parts = []
    for kind, name in (word.split("=") for word in words.split() if "." not in word):
        args = registry.check_args(kind, name, {}, given=GIVEN[kind])
        more = [word.split("=") for word in words.split() if word.startswith(f"{kind}.{name}.")]
        parts.append(registry.get(kind, name).set_to(args | {key.split(".")[-1]: value for key, value in more}))
    reason = refusal(Combination(tuple(parts)))
    assert ("trains no client, so it would change nothing; use attack=none" in (reason or "")) == refused
    assert refused or reason is None


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
    assert len({(cell.first, cell.second) for cell in cells}) == len(cells)
    unordered = {frozenset((cell.first, cell.second)) for cell in cells if cell.first[0] != cell.second[0]}
    methods = len(registry.names("strategy"))
    assert len(cells) == len(unordered) + methods * (methods - 1)  # of two methods both orders
    for cell in cells:
        assert cell.reason == refusal(Combination(_parts(cell.first, cell.second)))
    refused = {(cell.first[1], cell.second[1]) for cell in cells if cell.reason}
    assert {("toy_shift", "toy_post"), ("toy_b", "toymedian"), ("toy_a", "toy_c")} <= refused
    assert ("balanced_softmax", "la_post") in refused
    assert {("toy_a", "toy_c"), ("toy_c", "toy_a")} <= refused
    assert ("ce", "la_post") not in refused


def test_what_goes_by_labels_stands_inside_what_asks_for_them() -> None:
    for outer in ("coreset", "scope", "fedssg"):
        for inner in ("active", "fairfal"):
            reason = refusal(Combination(_parts(("strategy", outer), ("strategy", inner))))
            assert reason is not None
            assert reason.endswith(f"use strategy=[{inner},{outer}]")
            assert refusal(Combination(_parts(("strategy", inner), ("strategy", outer)))) is None


def test_a_choice_of_rows_is_not_undone_by_an_outer_one() -> None:
    reason = refusal(Combination(_parts(("strategy", "scope"), ("strategy", "coreset"))))
    assert reason is not None
    assert reason.endswith("use strategy=[coreset,scope]")
    assert refusal(Combination(_parts(("strategy", "coreset"), ("strategy", "scope")))) is None


def test_methods_between_do_not_hide_the_order() -> None:
    three = ("strategy", "coreset"), ("strategy", "public"), ("strategy", "active")
    assert "use strategy=[active,coreset]" in (refusal(Combination(_parts(*three))) or "")
