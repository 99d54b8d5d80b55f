"""What all outputs share: the verb, the exit code, and how values become JSON."""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from fedimb.registry.arguments import argument_docs

SCHEMA_VERSION = 1
"""Counts changes that take something away or change its meaning; new fields keep it."""


def _number(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_number)]
"""A number; null where it is undefined (JSON has no NaN)."""
Place = Annotated[str, BeforeValidator(lambda path: str(Path(path).absolute()))]
"""A file or folder, as an absolute path."""


class Part(BaseModel):
    """A record inside an output. A class's ``Attributes:`` become the descriptions in its JSON schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        docs = argument_docs(cls.__doc__ or "")
        for name, field in cls.model_fields.items():
            if text := docs.get(field.alias or name):
                field.description = text.replace("`", "")
        cls.model_rebuild(force=True)

    @classmethod
    def of(cls, thing: object) -> Any:
        """A record with the attributes of the same names."""
        return cls.model_validate({name: getattr(thing, name) for name in cls.model_fields if hasattr(thing, name)})


class Output(Part):
    """The result of a verb.

    Attributes:
        verb: the verb and its action, as in "runs list".
        exit_code: the exit code of the command.
        schema_version: version of this format; new fields keep it.
    """

    verb: str = ""
    exit_code: int = 0
    schema_version: int = SCHEMA_VERSION


class Failure(Output):
    """A command that failed: its only output. The same message is on standard error, for people.

    Attributes:
        error: the message, one line.
        kind: ConfigError, DataError: bad input. RunFailed, RunDiverged: a run stopped. RunWaiting: it is waiting for a
            person. Usage: the command line cannot be read. Interrupted: Ctrl-C. FedimbError or a Python error: anything
            else.
    """

    error: str
    kind: str
