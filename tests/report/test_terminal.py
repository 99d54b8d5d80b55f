"""Pictures in the terminal: shades and steps by hand, names that do not fit, streams without blocks or colours."""

import io

import numpy as np
import pytest

from fedimb.report.terminal import draw_partition, draw_study, sparkline

from .html.studies import failed, plain, result, setting, study


def drawn(work, *words, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    work(*words, stream)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_a_study_in_words_of_blocks():
    lines = drawn(draw_study, plain()).splitlines()
    assert lines[2].split() == ["client", "\\", "class", "cat", "dog", "fox<"]
    assert [line.split() for line in lines[3:6]] == [
        ["0", "███", "▓▓▓", "░░░"],  # of 30 at most: 30, 6 and 1
        ["1", "▓▓▓", "▒▒▒", "░░░"],
        ["2", "-", "░░░", "-"],
    ]
    assert lines[6] == "░░░ from 1, ▒▒▒ from 3, ▓▓▓ from 6, ███ from 13, up to 30; -: none; <: minority"
    assert "rounds 1 to 3" in lines[8]
    assert lines[10].split() == ["1", "fedavg", "(control)", "▁▁▂", "0.150", "±", "0.124", "▂▄▆", "0.633", "±", "0.041"]
    assert lines[11].split()[:3] == ["2", "la_post", "▂▃▅"]
    assert "\x1b" not in "".join(lines)


def test_without_blocks_other_characters_stand_for_them():
    text = drawn(draw_study, plain(), encoding="ascii")
    assert "### " in text
    assert "+- 0.124" in text
    assert sparkline([0.0, 0.5, float("nan"), 1.0], io.StringIO()) == "04 7"


@pytest.mark.parametrize(
    ("clients", "classes", "names", "words"),
    [
        (30, 3, "abc", ["2 clients \\ class", "\n28 ", "up to 6;"]),
        (2, 12, ["a long name"] * 12, ["client \\ class id", " 11<", "up to 12;"]),
        (2, 40, "x" * 40, ["client \\ from place", " 1 ", " 38<", "up to 154;"]),
        (1, 1, "x", ["client \\ class", "up to 1;"]),
    ],
)
def test_what_does_not_fit_is_put_together(clients, classes, names, words):
    counts = np.arange(classes, 0, -1) * np.ones((clients, 1), int)
    text = drawn(draw_partition, counts, list(names), [classes - 1])
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) < 100


def test_long_labels_stay_on_one_line_and_are_text():
    rows = [result("[red]" + "a" * 60, s, (20, 15, 2)) for s in range(2)]
    text = drawn(draw_study, study([*rows, result("fedavg", 0, (20, 15, 2))]))
    assert max(map(len, text.splitlines())) < 100
    assert "\n1 [red]aaaaaaaaaaaaa.." in text


def test_settings_without_a_result_or_counts():
    rows = [result("fedavg", 0, (20, 15, 2), setting="easy"), failed("fedavg", 0, setting="gone")]
    text = drawn(draw_study, study(rows, [setting("easy"), setting("gone")]))
    assert "\neasy\n" in text
    assert "gone" not in text
