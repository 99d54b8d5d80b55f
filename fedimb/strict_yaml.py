"""YAML as people write it, read strictly: a key given twice is an error.

PyYAML keeps the last of two equal keys without a word: of two ``sharing:`` blocks in a node.yaml, the laxer could win.
"""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping and compare its keys as written, before ``<<`` merges others into it."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[object, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = self.construct_object(key), key.start_mark.line + 1
            if name in lines:
                text = f"'{name}' is given twice, in lines {lines[name]} and {line}: keep one"
                raise yaml.constructor.ConstructorError(None, None, text)
            lines[name] = line
        return node


def load_yaml(text: str) -> Any:
    """The content of a YAML text: plain values only. Raises yaml.YAMLError; also if a mapping has a key twice.

    Example:
        >>> load_yaml("limits: {cpus: 2}")
        {'limits': {'cpus': 2}}
    """
    return yaml.load(text, _Loader)
