"""A table's label column to class names, and whether a site's labels cover all of them."""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite

from fedimb.data.identifiers import identifier, in_order, no_label_marks
from fedimb.data.inputs import TableColumns
from fedimb.data.sources.table_file import number
from fedimb.errors import ConfigError, DataError, nearest

Value = int | float | str
_SHOWN = 8


def value_spelling(value: object) -> str:
    """How 0.1 spelled labels and categories: numbers by their float64 value. Only for new rows of such runs.

    ``0012`` is 12 and ``1E2`` 100, and whole numbers from 2^53 on are rounded, unlike by `fedimb.data.identifiers`.
    """
    text = str(value)
    parsed = number(text)
    if parsed is None or parsed != parsed or parsed in (float("inf"), float("-inf")):
        return text
    return str(int(parsed)) if parsed == int(parsed) else repr(parsed)


def spelling_of(columns: TableColumns | None) -> Callable[[object], str]:
    """How the labels and categories of a run's table are spelled: `identifier`, or as the run's release did."""
    return value_spelling if columns is not None and columns.by_value else identifier


class Target:
    """Label text to class name, by exactly one rule.

    - ``thresholds`` [t1 < t2 ...]: the label is a number, and its class is the number of thresholds at or below it, so
      ``classes: [mild, severe], thresholds: [3]`` makes 3 and above severe.
    - ``target_map`` {label: class}: ``{0: healthy, 1: ill, 2: ill}``. Without ``classes``, in the labels' order.
    - neither: the label is the class's name. Without ``classes`` the names are those in the data, in order.

    Labels are compared as identifiers (`fedimb.data.identifiers`): ``1.0`` matches ``1`` in the map, ``01`` does not.

    Args:
        spell: a label's identifier; another only for new rows of a run of 0.1.
        kind: name of the source, for messages.

    Raises:
        ConfigError: rules that contradict each other.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        target_map: dict[str, str] | None = None,
        thresholds: Sequence[float] | None = None,
        spell: Callable[[object], str] = identifier,
        kind: str = "tabular_csv",
    ) -> None:
        self.kind = kind
        if target_map is not None and thresholds is not None:
            raise ConfigError(f"source '{self.kind}': target_map and thresholds are two rules for one label; give one")
        self.thresholds, self._spell = thresholds, spell
        self.map = {spell(label): name for label, name in target_map.items()} if target_map is not None else None
        if target_map is not None and len(self.map or {}) < max(1, len(target_map)):
            raise ConfigError(f"source '{self.kind}': target_map is empty or has a label twice; give each label once")
        if classes is None and self.map is not None:
            classes = list(dict.fromkeys(self.map[label] for label in in_order(self.map)))
        self.classes = None if classes is None else list(classes)
        self._check()
        self._names = {spell(name): name for name in self.classes or ()}

    def _check(self) -> None:
        classes = self.classes
        if classes is not None and (not classes or len({self._spell(name) for name in classes}) < len(classes)):
            raise ConfigError(f"source '{self.kind}': classes={classes}: give distinct names, at least one")
        if self.thresholds is not None:
            if classes is None or len(classes) != len(self.thresholds) + 1:
                raise ConfigError(
                    f"source '{self.kind}': {len(self.thresholds)} thresholds make {len(self.thresholds) + 1} classes; "
                    f"classes={classes}: give as many names, lowest first"
                )
            if any(not low < high for low, high in zip(self.thresholds, self.thresholds[1:], strict=False)):
                raise ConfigError(
                    f"source '{self.kind}': thresholds={list(self.thresholds)}: give them in rising order"
                )
        if self.map is not None and classes is not None:
            for name in self.map.values():
                if name not in classes:
                    raise ConfigError(f"source '{self.kind}': target_map names class '{name}'.{nearest(name, classes)}")
            for name in classes:
                if name not in self.map.values():
                    raise ConfigError(f"source '{self.kind}': no label of target_map has class '{name}'; add one")

    def __call__(self, label: str) -> str:
        """The class name of a label as written in the file. DataError if there is none."""
        if self.thresholds is not None:
            value = number(label)
            if value is None or not isfinite(value):
                raise DataError(f"label '{label}' is not a number, but the classes are defined by thresholds")
            return (self.classes or [])[sum(value >= threshold for threshold in self.thresholds)]
        known = self._spell(label)
        if self.map is not None:
            if known not in self.map:
                raise DataError(f"label '{label}' is not in target_map ({_listed(self.map)})")
            return self.map[known]
        if self.classes is not None:
            if known not in self._names:
                raise DataError(f"label '{label}' is not in the class list ({_listed(self.classes)})")
            return self._names[known]
        if number(label) is not None and not known.lstrip("-").isdigit():
            raise DataError(
                f"label '{label}' is not a whole number; name the classes, or define them with thresholds=[...]"
            )
        return known

    def names(self, found: Iterable[str]) -> list[str]:
        """The class list, collected from the names ``found`` if none is given.

        Raises:
            DataError: the collected labels are numbers in some rows and text in others.
        """
        if self.classes is not None:
            return self.classes
        gathered = in_order(found)
        numbers = [name for name in gathered if number(name) is not None]
        if numbers and len(numbers) < len(gathered):
            text = next(name for name in gathered if name not in numbers)
            raise DataError(
                f"labels are numbers in some rows ('{numbers[0]}') and text in others ('{text}'); "
                f"give target_map={{label: class}}"
            )
        if marks := no_label_marks(gathered):
            mark, reason = min(marks.items())
            raise DataError(
                f"label {mark} {reason}: give missing=[{mark}] and data.on_bad=skip to leave its rows out, or, if it "
                "is a class, list all in classes"
            )
        return gathered


def refuse_mute_site(site: str, reached: Iterable[str], labels: Iterable[str], classes: Sequence[str]) -> None:
    """Raise DataError if the labels of ``site`` cannot express every class: its rows would count as another class.

    Args:
        reached: the classes that those labels map to.
        labels: the labels that the site records.
        classes: the class list.
    """
    reached = set(reached)
    lacking = [name for name in classes if name not in reached]
    if lacking:
        raise DataError(
            f"site '{site}' cannot express class '{lacking[0]}': its labels are {_listed(in_order(labels)) or 'none'}. "
            f"Leave the site out, choose classes that every site records, or, if it records the class and has no such "
            f"row, list what it can record in label_values={{{site}: [...]}}"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
