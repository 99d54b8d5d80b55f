"""Recall by site or device in text: which rows it shows, in which order, and where there is nothing to show."""

import math

from fedimb.report.by_domain import domain_lines

SCORES = {
    "macro_recall": 0.5,
    "domain/01_Süd/macro_recall": 0.75,
    "domain/01_Süd/minority_recall": math.nan,
    "domain/00_linz/macro_recall": 0.5,
    "domain/00_linz/minority_recall": 0.25,
    "worst_domain_macro_recall": 0.4375,
    "worst_domain_minority_recall": 0.125,
}


def test_sites_by_id_then_the_worst_with_the_minority_first():
    assert domain_lines(SCORES) == [
        "site or device of the test rows  minority recall  macro recall",
        "0 linz                                     0.250         0.500",
        "1 Süd                                        n/a         0.750",
        "worst, round by round                      0.125         0.438",
        "means of the last scored rounds",
    ]


def test_nothing_is_said_where_the_data_name_none():
    assert domain_lines({"macro_recall": 0.5}) == []


def test_of_many_sites_the_worst_alone_is_known():
    few = {key: value for key, value in SCORES.items() if not key.startswith("domain/")}
    assert len(domain_lines(few)) == 3
