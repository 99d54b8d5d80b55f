"""Settings of a worklist, checked when a run is prepared."""

from dataclasses import dataclass, fields
from typing import Literal

from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings


@dataclass(frozen=True)
class WorklistSettings:
    """Settings of the worklist oracle, ``oracle: {name: worklist, ...}``.

    Attributes:
        folder: parent of the clients' site folders, ``<folder>/client-003``. A site that sets ``FEDIMB_SITE_DIR``
            has its worklists there instead, whatever the run's setting.
        readers: 1, or 2 for independent readings, kappa and an adjudication list.
        per_patient: maximum number of rows per patient and cycle, the highest-ranked ones; None: no limit.
        partial: ``wait``: the run continues once every item has an answer; ``accept``: with the answers so far.
        show_prediction: show readers the model's prediction. Off by default, because it anchors them.
        separator: between the cells of CSV files: ``,``, or ``;`` with decimal commas.

    Raises:
        ConfigError: the setting, what is wrong, and what to set instead.
    """

    folder: str = "sites"
    readers: Literal[1, 2] = 1
    per_patient: int | None = None
    partial: Literal["wait", "accept"] = "wait"
    show_prediction: bool = False
    separator: Literal[",", ";"] = ","

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str) or not self.folder:
            raise _wrong("folder", self.folder, "a folder's name, as sites")
        if self.readers not in (1, 2) or isinstance(self.readers, bool):
            raise _wrong("readers", self.readers, "1 or 2")
        patients = self.per_patient
        if patients is not None and (not isinstance(patients, int) or isinstance(patients, bool) or patients < 1):
            raise _wrong("per_patient", patients, "a whole number of at least 1, or null")
        if self.partial not in ("wait", "accept"):
            raise _wrong("partial", self.partial, "wait or accept")
        if not isinstance(self.show_prediction, bool):
            raise _wrong("show_prediction", self.show_prediction, "true or false")
        if self.separator not in (",", ";"):
            raise _wrong("separator", self.separator, "',' or ';'")

    @staticmethod
    def of(args: Settings) -> "WorklistSettings":
        """From the configuration's mapping. ConfigError for an unknown setting."""
        known = [field.name for field in fields(WorklistSettings)]
        for name in args:
            if name not in known:
                raise ConfigError(f"oracle 'worklist' has no setting '{name}'.{nearest(name, known)}")
        return WorklistSettings(**args)


def _wrong(name: str, value: object, instead: str) -> ConfigError:
    return ConfigError(f"oracle 'worklist': {name} is {value!r}; give {instead}")
