"""The rules of ``data.test``: their arguments, checked before any work."""

from datetime import date

from fedimb.data.identifiers import identifier
from fedimb.data.times import as_time
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings

TEST_RULES: dict[str, tuple[str, ...]] = {
    "none": (),
    "official": (),
    "balanced": ("per_class",),
    "stratified": ("fraction",),
    "by_patient": ("fraction",),
    "by_site": ("fraction",),
    "leave_site_out": ("sites",),
    "fold": ("folds", "fold", "repeat"),
    "temporal": (),
    "file": ("path",),
}
"""Rule -> the arguments it needs."""

OPTIONAL: dict[str, tuple[str, ...]] = {
    "official": ("min_per_class",),
    "stratified": ("min_per_class",),
    "by_patient": ("min_per_class",),
    "by_site": ("min_per_class",),
    "leave_site_out": ("min_per_class",),
    "fold": ("inner_folds", "inner_fold", "min_per_class"),
    "temporal": ("fraction", "since", "min_per_class"),
}
"""Rule -> the arguments it may have; null counts as not given."""

_LEAST = {
    "per_class": 1,
    "folds": 2,
    "fold": 0,
    "repeat": 0,
    "inner_folds": 2,
    "inner_fold": 0,
    "min_per_class": 1,
}


def check_test_rule(rule: Settings) -> None:
    """Raise ConfigError unless ``rule`` is a known test split with arguments in range."""
    name = rule.get("name")
    if name not in TEST_RULES:
        raise ConfigError(f"data.test.name: no test split '{name}'.{nearest(str(name), TEST_RULES)}")
    needed, optional = TEST_RULES[name], OPTIONAL.get(name, ())
    for key in rule:
        if key not in ("name", *needed, *optional):
            raise ConfigError(f"data.test ({name}) has no argument '{key}'.{nearest(key, (*needed, *optional))}")
    given = {key: rule.get(key) for key in (*needed, *optional) if key in needed or rule.get(key) is not None}
    for key, value in given.items():
        if key in _LEAST and not (type(value) is int and value >= _LEAST[key]):  # not isinstance: True is not a count
            raise ConfigError(f"data.test.{key}={value!r}: give a whole number of at least {_LEAST[key]}")
        if key == "fraction" and not (isinstance(value, float) and 0 < value < 1):
            raise ConfigError(f"data.test.fraction={value!r}: give a number between 0 and 1")
        if key == "path" and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"data.test.path={value!r}: give the file that `fedimb data split --to FILE` wrote")
    if name == "fold":
        _check_folds(given)
    if name == "temporal":
        _check_temporal(given)
    if name == "leave_site_out":
        _check_sites(given["sites"])


def of_seed(rule: Settings, seed: int) -> Settings:
    """``rule`` with what depends on the run's seed: without ``inner_fold``, seeds take the inner folds in turn."""
    if rule.get("inner_folds") is None or rule.get("inner_fold") is not None:
        return rule
    return rule | {"inner_fold": seed % rule["inner_folds"]}


def _check_folds(given: Settings) -> None:
    for fold, folds in (("fold", "folds"), ("inner_fold", "inner_folds")):
        if fold not in given:
            continue
        if folds not in given:
            raise ConfigError("data.test.inner_fold needs inner_folds, the number of folds within the training rows")
        if given[fold] >= given[folds]:
            raise ConfigError(
                f"data.test.{fold}={given[fold]}: {folds}={given[folds]} are counted from 0 to {given[folds] - 1}"
            )


def _check_temporal(given: Settings) -> None:
    if ("fraction" in given) == ("since" in given):
        raise ConfigError(
            "data.test=temporal takes the last fraction of the rows or those since a date: give one of "
            "{name: temporal, fraction: 0.2} and {name: temporal, since: '2023-01-01'}"
        )
    since = given.get("since")
    if isinstance(since, bool) or not isinstance(since, str | int | date | None):
        raise ConfigError(f"data.test.since={since!r}: give a date such as '2023-01-31', or a whole number")
    if isinstance(since, str | date):
        try:
            offset = as_time(str(since))[1]
        except ValueError:
            raise ConfigError(
                f"data.test.since={str(since)!r}: give an ISO date such as '2024-03-04' or '2024-03-04T10:30'"
            ) from None
        if offset:
            raise ConfigError(
                f"data.test.since={str(since)!r} has an offset from UTC: give the time without one, as the rows have "
                "it (in UTC if their times have offsets)"
            )


def _check_sites(sites: object) -> None:
    if (
        not isinstance(sites, list)
        or not sites
        or not all(isinstance(site, str | int) and not isinstance(site, bool) for site in sites)
        or len(set(map(identifier, sites))) < len(sites)
    ):
        raise ConfigError(
            f"data.test.sites={sites!r}: give the names of the held-out sites, each once, as in sites: [site_a]"
        )
