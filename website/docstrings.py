"""Docstrings as griffe reads them: its section is called ``Examples``, ours ``Example``."""

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Renames the section in every docstring of the package, in memory."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each class, function, attribute and module once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
