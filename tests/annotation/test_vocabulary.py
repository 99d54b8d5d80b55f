import pytest

from fedimb.annotation.vocabulary import CANNOT_JUDGE, Vocabulary
from fedimb.errors import ConfigError

WORDS = Vocabulary(("benign", "Melanoma in situ", "+ve", "1-2", "7"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("benign", 0),
        ("  BENIGN ", 0),
        ("melanoma_in  situ", 1),
        ("+ve", 2),
        ("'+ve", 2),
        ("1-2", 3),
        ("c-03", 3),
        ("C-00", 0),
        ("7", 4),
        ("7.0", 4),
        ("cannot judge", CANNOT_JUDGE),
        ("Cannot_Judge", CANNOT_JUDGE),
        ("", None),
        ("   ", None),
    ],
)
def test_answers_are_read(text, label):
    assert WORDS.read(text) == label


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("benin", "Did you mean 'benign'"),
        ("malignant", "Valid: "),
        ("02. Jan", "c-00 for 'benign'"),
        ("#NAME?", r"formula; write the class's code instead .*\+ve \(c-02\)"),
        ('=HYPERLINK("http://x")', "is not a class"),
        ("c-05", "is not a class"),
        ("canot judge", "Did you mean 'cannot judge'"),
    ],
)
def test_what_is_no_answer_is_told_with_the_nearest(text, says):
    with pytest.raises(ValueError, match=says):
        WORDS.read(text)


def test_every_class_is_read_by_name_and_by_code():
    names = tuple(f"class {c}" for c in range(150))
    words = Vocabulary(names)
    assert [words.read(name) for name in names] == list(range(150))
    assert [words.read(code) for code in words.codes] == list(range(150))
    assert words.codes[7] == "c-007"
    assert words.show(7) == "class 7"
    assert words.show(CANNOT_JUDGE) == "cannot judge"


def test_a_name_wins_over_a_code():
    assert Vocabulary(("c-01", "b")).read("c-01") == 0


@pytest.mark.parametrize(
    ("names", "says"),
    [(("a", "Cannot judge"), "cannot offer"), (("a", " "), "cannot offer"), (("A b", "a_B"), "look the same")],
)
def test_classes_a_reader_could_not_tell_apart_are_refused(names, says):
    with pytest.raises(ConfigError, match=says):
        Vocabulary(names)


def test_the_legend_names_every_answer():
    assert Vocabulary(("a", "b")).legend() == "a (c-00), b (c-01), cannot judge"
