"""Nearest mean and discriminant analysis of the rows of images.yaml and images_mild.yaml, without and with D_0.

    python experiments/fedssg/heads.py     # a few seconds per seed; needs runs/lite0 and no run

heads.csv: for every setting and seed of both studies both heads of the clients' rows (the rows ncm and lda of the
study, computed once more), of these and D_0 (the server's rows) together, and of D_0 alone, at minimum counts of 1 and
5. Nothing is trained. With ``--only`` the lines of other studies and settings stay as they stand.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare_unsettled
from fedimb.data.views import to_tensors
from fedimb.discriminant.pooled import head_of
from fedimb.evaluation.metrics import scores
from fedimb.study.cells import first_config
from fedimb.study.design import read_study
from fedimb.study.experiments import arguments, parser_of
from fedimb.study.pages import Line, merge_lines

HERE = Path(__file__).parent
STUDIES = ("images", "images_mild")
CELL = ("study", "setting")
SCORES = ("macro_recall", "minority_recall")


def inputs(federation: Federation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, d] float64 and labels [n] int64, as the model reads them."""
    x, y = to_tensors(federation.store, rows, federation.scaling)
    return x.flatten(1).numpy().astype(np.float64), y.numpy().astype(np.int64)


def heads_on(federation: Federation) -> Iterator[Line]:
    """Test scores of both heads, on three choices of rows, at both minimum counts."""
    own, public = np.concatenate(list(federation.train)), federation.public
    tested, truth = inputs(federation, federation.test)
    classes = federation.n_classes
    for named, rows in {"clients": own, "clients and D_0": np.concatenate([own, public]), "D_0": public}.items():
        x, y = inputs(federation, rows)
        for head in ("ncm", "lda"):
            for count in (1, 5):
                guess = head_of(x, y, classes, head, count)(tested).argmax(axis=1)  # type: ignore[arg-type]
                matrix = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
                made = scores(matrix, federation.minority)
                about: Line = {"rows": named, "head": head, "min_count": count, "n": len(x)}
                yield about | {score: float(made[score]) for score in SCORES}


def main() -> None:
    studies = {name: read_study(HERE / f"{name}.yaml") for name in STUDIES}
    settings = list(dict.fromkeys(setting for study in studies.values() for setting in study.setting_words))
    parser = parser_of(__file__, __doc__)
    parser.add_argument("--studies", nargs="*", choices=STUDIES, default=STUDIES, help="as in images_mild")
    parser.add_argument("--only", nargs="*", choices=settings, default=settings, help="settings, as in cifar10")
    args = arguments(parser)
    lines = list[Line]()
    for name in args.studies:
        for setting in args.only:
            config = first_config(studies[name], setting, ())
            for seed in studies[name].seed_list:
                federation, _ = prepare_unsettled(config.data, config.partition, config.clients.count, seed)
                lines += [{"study": name, "setting": setting, "seed": seed} | line for line in heads_on(federation)]
    merge_lines(args.to / "heads.csv", lines, CELL)


if __name__ == "__main__":
    main()
