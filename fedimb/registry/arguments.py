"""A YAML value against a factory's annotation: strict about numbers, plain about the reason."""

import inspect
import json
from functools import lru_cache
from typing import Any


def annotation_of(factory: Any, parameter: inspect.Parameter) -> Any:
    """The type to check against; Any for none, and for one whose import is for type checkers only."""
    note = parameter.annotation
    if note is inspect.Parameter.empty:
        return Any
    if isinstance(note, str):
        code = factory.__init__ if inspect.isclass(factory) else inspect.unwrap(factory)
        try:
            return eval(note, getattr(code, "__globals__", {}))  # what inspect.get_annotations does, one at a time
        except NameError:
            return Any
    return note


def typed(annotation: Any, value: Any) -> Any:
    """``value`` as the annotation wants it; ValueError with one line when it does not fit."""
    from pydantic import ValidationError

    adapter = _adapter(annotation)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # an object given from Python, not from a configuration
        text = None
    try:
        # JSON mode is strict about numbers and yet lets a list be a tuple, which strict Python mode refuses
        return adapter.validate_python(value) if text is None else adapter.validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"[{step}]" for step in problem["loc"] if isinstance(step, int))
        raise ValueError(f"{where} {problem['msg'][:1].lower()}{problem['msg'][1:]}".strip()) from None


@lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a model or dataclass brings its own configuration
        return TypeAdapter(annotation)
