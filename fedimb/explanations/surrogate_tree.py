"""surrogate_tree: a small decision tree that imitates the model on a client's rows, with its fidelity."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.explanations.base import ClientArrays, ClientRows, Explained, Explanation, Floor
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.registry.arguments import Positive, PositiveCount

_LEAF = -1


@register("explanation", "surrogate_tree")
class SurrogateTree(Explanation):
    """A decision tree fitted to the model's predictions (Craven and Shavlik, NeurIPS 1995), for tables.

    Values are rounded to a grid before the tree is fitted, so that no threshold lies at a patient's own value. Every
    leaf has rows of at least ``floor`` people; classes weigh the same, so that rare ones get leaves. Fidelity is the
    share of rows on which tree and model agree: of validation rows if there are ``floor`` of them, else of those it was
    fitted to.

    Args:
        floor: fewest people in a leaf.
        depth: most questions from the root to a leaf.
        grid: step of the thresholds, in the units of the model's inputs (of a scaled table: deviations).
    """

    name = "surrogate_tree"
    explains = "tree"
    tables_only = True
    one_class = True

    def __init__(self, floor: Annotated[int, Floor] = 10, depth: PositiveCount = 4, grid: Positive = 0.25) -> None:
        self.floor, self.depth, self.grid = floor, depth, grid

    def at_client(self, rows: ClientRows) -> Explained:
        """The client's tree as arrays; none if it has rows of fewer than ``floor`` people."""
        classes = len(rows.class_names)
        found = Explained({"rows": np.zeros(classes, np.int64), "found": np.zeros(classes, np.int64)})
        if len(np.unique(rows.people)) < self.floor:
            return found
        said = _predicted(rows.model, rows.x)
        cells = self._cells(rows.x)
        tree = _pruned(self._fit(cells, said), cells, rows.people, self.floor)
        apart = len(rows.held_out) >= self.floor
        judged = rows.held_out if apart else rows.x
        truth, own = _predicted(rows.model, judged), _predict(tree, self._cells(judged))
        for c in range(classes):
            held = said == c
            enough = [len(np.unique(rows.people[which])) >= self.floor for which in (held, rows.y == c)]
            if all(enough):  # of the model's rows of the class, and of the class itself
                found.by_class["rows"][c] = held.sum()
                found.by_class["found"][c] = (_predict(tree, cells[held]) == c).sum()
        inner = tree["feature"] >= 0
        found.overall = {
            "feature": tree["feature"],
            "threshold": np.where(inner, (tree["cell"] + 0.5) * self.grid, 0.0).astype(np.float32),
            "left": tree["left"],
            "right": tree["right"],
            "leaf_rows": np.where(inner, 0, tree["rows"]),
            "leaf_class": np.where(inner, _LEAF, tree["class"]),
            "fidelity": np.array([(truth == own).sum(), len(truth), int(apart)], np.int64),
        }
        return found

    def _cells(self, x: Tensor) -> NDArray[np.int64]:
        """[n, F] the grid's cell of each value; cell k is from (k - 1/2) to (k + 1/2) steps."""
        return np.floor(x.numpy().astype(np.float64) / self.grid + 0.5).astype(np.int64)

    def _fit(self, cells: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        from sklearn.tree import DecisionTreeClassifier

        fitted = DecisionTreeClassifier(
            max_depth=self.depth, min_samples_leaf=self.floor, class_weight="balanced", random_state=0
        ).fit(cells, said)
        tree = fitted.tree_
        inner = tree.children_left >= 0
        return {
            "feature": np.where(inner, tree.feature, _LEAF).astype(np.int64),
            "cell": np.floor(np.where(inner, tree.threshold, 0)).astype(np.int64),  # the same rows go left
            "left": np.where(inner, tree.children_left, _LEAF).astype(np.int64),
            "right": np.where(inner, tree.children_right, _LEAF).astype(np.int64),
            "rows": tree.n_node_samples.astype(np.int64),
            "class": fitted.classes_[tree.value[:, 0].argmax(axis=1)].astype(np.int64),
        }

    def combine(
        self, replies: Mapping[int, ClientArrays], layout: InputLayout, class_names: Sequence[str]
    ) -> dict[str, Any]:
        """Every client's rules, their fidelity, and both over all clients."""
        trees, hits, scored = [], 0, 0
        for client, one in replies.items():
            if "feature" not in one:
                continue
            rules = _rules(one, layout, class_names)
            own = one["fidelity"]
            if rules is None or own.shape != (3,) or own[0] > own[1] or own[1] < self.floor:
                continue
            hits, scored = hits + int(own[0]), scored + int(own[1])
            about = {"client": client, "fidelity": int(own[0]) / int(own[1]), "rows": int(own[1])}
            trees.append({**about, "held_out": bool(own[2]), "rules": rules})
        rows = np.sum([one["rows"] for one in replies.values()], axis=0)
        found = np.sum([np.minimum(one["found"], one["rows"]) for one in replies.values()], axis=0)
        return {
            "rows": rows.tolist(),
            "clients": np.sum([one["rows"] > 0 for one in replies.values()], axis=0).tolist(),
            "kind": layout.kind,
            "features": list(layout.names),
            "found": [f / n if n else None for f, n in zip(found.tolist(), rows.tolist(), strict=True)],
            "fidelity": hits / scored if scored else None,
            "trees": trees,
        }


def _predicted(model: Classifier, x: Tensor) -> NDArray[np.int64]:
    from fedimb.training.forward import forward_batched

    with torch.no_grad():
        return forward_batched(model, x)[1].argmax(dim=1).cpu().numpy() if len(x) else np.zeros(0, np.int64)


def _leaves(tree: Mapping[str, NDArray[np.int64]], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] the leaf of each row."""
    at = np.zeros(len(cells), np.int64)
    while (inside := np.flatnonzero(tree["feature"][at] >= 0)).size:
        node = at[inside]
        left = cells[inside, tree["feature"][node]] <= tree["cell"][node]
        at[inside] = np.where(left, tree["left"][node], tree["right"][node])
    return at


def _predict(tree: Mapping[str, NDArray[np.int64]], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    return tree["class"][_leaves(tree, cells)]


def _pruned(
    tree: dict[str, NDArray[np.int64]], cells: NDArray[np.int64], people: NDArray[np.int64], floor: int
) -> dict[str, NDArray[np.int64]]:
    """The tree with nodes closed whose children have too few people or say the same, and what is left numbered anew."""
    changed = True
    while changed:
        changed = False
        at = _leaves(tree, cells)
        for node in np.flatnonzero(tree["feature"] >= 0):
            children = [tree["left"][node], tree["right"][node]]
            if any(tree["feature"][child] >= 0 for child in children):
                continue
            few = any(len(np.unique(people[at == child])) < floor for child in children)
            if few or tree["class"][children[0]] == tree["class"][children[1]]:
                tree["feature"][node] = tree["left"][node] = tree["right"][node] = _LEAF
                changed = True
                break
    kept = [0]
    for place in kept:  # grows while it is read: breadth first
        kept += [int(tree[side][place]) for side in ("left", "right") if tree["feature"][place] >= 0]
    number = {old: new for new, old in enumerate(kept)} | {_LEAF: _LEAF}
    small = {key: values[kept] for key, values in tree.items()}
    for side in ("left", "right"):
        small[side] = np.array([number[int(child)] for child in small[side]], np.int64)
    return small


def _rules(one: ClientArrays, layout: InputLayout, class_names: Sequence[str]) -> list[str] | None:
    """The tree as indented lines, thresholds in the source's units; None if the arrays are no tree."""
    feature, left, right = one["feature"], one["left"], one["right"]
    size = len(feature)
    lines: list[str] = []

    def walk(node: int, depth: int) -> bool:
        if not 0 <= node < size or len(lines) > 2 * size:  # a circle never ends
            return False
        indent = "  " * depth
        if feature[node] < 0:
            if not 0 <= one["leaf_class"][node] < len(class_names):
                return False
            lines.append(f"{indent}{class_names[one['leaf_class'][node]]} ({one['leaf_rows'][node]} rows)")
            return True
        if feature[node] >= len(layout.group):
            return False
        yes, no = _question(int(feature[node]), float(one["threshold"][node]), layout)
        lines.append(f"{indent}{yes}:")
        if not walk(int(left[node]), depth + 1):
            return False
        lines.append(f"{indent}{no}:")
        return walk(int(right[node]), depth + 1)

    return lines if size and walk(0, 0) else None


def _question(at: int, threshold: float, layout: InputLayout) -> tuple[str, str]:
    column = int(layout.group[at])
    name, categories = layout.names[column], layout.categories[column]
    if categories:
        value = categories[int(np.flatnonzero(layout.inputs_of(column) == at)[0])]
        return f"{name} is not {value}", f"{name} is {value}"
    if column in layout.missing:
        known = name.removesuffix(" missing")
        return f"{known} is known", f"{known} is missing"
    cut = threshold * float(layout.unit[at]) + float(layout.centre[at])
    return f"{name} < {cut:.4g}", f"{name} >= {cut:.4g}"
