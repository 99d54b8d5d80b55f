"""Texts that ``fedimb new`` fills in (``string.Template``): ``$name``, ``$package``, ``$Class``, ``$NAME``."""
