"""How the local model of a rule learns, where the rule wants one that was distilled."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distillation:
    """Local training on the labelled rows, from a fresh start, with the global model as the teacher.

    The objective is (1 - ``share``) cross-entropy + ``share`` T^2 KL(teacher || model); the learning rate is the run's
    times ``lr_factor``. It ends after ``epochs``, or once the objective over all labelled rows has not fallen for
    ``patience`` epochs. Numbers of IFAL (IJCAI 2025); that the patience looks at this objective is ours.
    """

    epochs: int = 500
    share: float = 0.9
    temperature: float = 4.0
    lr_factor: float = 0.1
    patience: int = 5
