"""How a rule's local model is trained if the rule needs a distilled one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Distillation:
    """Local training on the labelled rows, from a fresh start, with the global model as the teacher.

    The objective is (1 - ``share``) cross-entropy + ``share`` T^2 KL(teacher || model); the learning rate is the run's
    times ``lr_factor``. It ends after ``epochs``, or once the objective over all labelled rows has not fallen for
    ``patience`` epochs. Values from IFAL (IJCAI 2025); the paper does not say which value the patience refers to.
    """

    epochs: int = 500
    share: float = 0.9
    temperature: float = 4.0
    lr_factor: float = 0.1
    patience: int = 5
