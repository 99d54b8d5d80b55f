"""Shapes of one row that say what it is: (channels, length) of a signal is not (height, width) of a picture."""

from collections.abc import Sequence

from fedimb.errors import ConfigError

_NARROW = 4  # sides from which two numbers are rather channels and a length than a picture's height and width


class SignalShape(tuple[int, ...]):
    """(channels, length) of one window of a signal: equal to the plain tuple, and known to be no picture.

    Example:
        >>> SignalShape((9, 128)) == (9, 128)
        True
    """


def may_be_signal(shape: Sequence[int]) -> bool:
    """Whether a row of ``shape`` is one of a signal, as far as can be told: it says so, or one of two sides is at least
    four times the other.

    Example:
        >>> may_be_signal((9, 128)), may_be_signal((28, 28)), may_be_signal((1, 28, 28))
        (True, False, False)
    """
    if isinstance(shape, SignalShape):
        return True
    return len(shape) == 2 and max(shape) >= _NARROW * max(1, min(shape))


_FOR_SIGNALS = {
    "model": ("reads signals", "use mlp for a table, cnn4conv for images"),
    "augmentation": ("changes signals", "remove it from local.augmentation (noise takes any shape)"),
}
"""Kind of part -> what it does, and what to do with other data."""


def signal_shape(kind: str, name: str, shape: Sequence[int]) -> tuple[int, int]:
    """(channels, length) of one row, for a model or an augmentation that works on signals alone.

    Raises:
        ConfigError: a row has not two axes.
    """
    if len(shape) != 2:
        what, remedy = _FOR_SIGNALS[kind]
        raise ConfigError(
            f"{kind} '{name}' {what}: expected an input shape (channels, length), this data has {tuple(shape)}; "
            f"{remedy}"
        )
    return shape[0], shape[1]
