"""YAML as people write it: numbers as numbers, everything else verbatim, no key given twice.

PyYAML reads YAML 1.1, in which 1e-5 and 1e5 are texts, 12:30 is 750, 010 is 8 and 2024-01-31 is a
date. Here a number is what JSON calls one (or 0x1f, 1_000, .5), and what is neither a number, nor
true, false, yes, no, on, off or null is text. What is written back is read the same.
"""

import re
from typing import Any

import yaml

from palate.errors import ConfigError

OURS = "tag:yaml.org,2002:"
INT, FLOAT, MERGE = OURS + "int", OURS + "float", OURS + "merge"
PLAIN = (INT, FLOAT, OURS + "bool", OURS + "null")
"""What a value without quotes may be besides text."""
WHOLE = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*)$")
DECIMAL = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
OTHERS = ("bool", "null", "merge")
"""What PyYAML tells from text besides numbers, as it does."""


def _resolvers(original: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    """First character → (tag, pattern), with our numbers and without dates."""
    kept = {OURS + name for name in OTHERS}
    found = {
        first: [pair for pair in pairs if pair[0] in kept] for first, pairs in original.items()
    }
    for first in "-+0123456789.":
        found.setdefault(first, []).extend([(INT, WHOLE), (FLOAT, DECIMAL)])
    return found


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers)

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Keys and values; of keys that `<<` merges, those written out count."""
        self._check_keys(node)
        return super().construct_mapping(node, deep=deep)

    def _check_keys(self, node: Any) -> None:
        """Refuse two keys that are written alike (1 and "1") or mean the same (1 and 0x1), here
        and in what is merged. PyYAML writes merged keys into a node, so each is looked at once."""
        if id(node) in self._checked:
            return
        self._checked.add(id(node))
        lines: dict[Any, int] = {}
        for given, value in node.value:
            if given.tag == MERGE:
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    if isinstance(part, yaml.MappingNode):
                        self._check_keys(part)
            elif isinstance(given, yaml.ScalarNode):
                line = given.start_mark.line + 1
                for key in {given.value, self.construct_object(given)}:
                    if key in lines:
                        where = f"lines {lines[key]} and {line}"
                        raise ConfigError(
                            f"{where if line != lines[key] else f'line {line}'}: the key "
                            f"'{given.value}' is given twice. Put all of it in one place, or "
                            "delete one of the two."
                        )
                    lines[key] = line


class _Dumper(yaml.SafeDumper):
    """Quotes texts that the loader would take for something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def read_yaml(text: str) -> Any:
    """The value that a YAML text holds.

    Raises:
        yaml.YAMLError: it is no YAML.
        ConfigError: a key is given twice; names both lines.
    """
    return yaml.load(text, _Loader)


def write_yaml(content: Any) -> str:
    """Keys and values as YAML that `read_yaml` reads the same, in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def read_value(text: str) -> Any:
    """One value as it stands behind --set KEY=: all of it, whatever characters it has.

    A number, true, false or null is that; [a, b], {a: 1} and "quoted text" are read as YAML; every
    other text is itself, such as `a #b.csv`, `C: new`, `@x` or `it's`.

    Raises:
        yaml.YAMLError: what begins as a list or as keys and values is not one.
        ConfigError: a key is given twice.
    """
    text = text.strip()
    is_flow = text[:1] in ("[", "{")
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError:
        if is_flow:
            raise
        return text
    if node is None:
        return text or None
    is_whole = node.end_mark.index == len(text)
    if isinstance(node, yaml.ScalarNode):
        is_plain = node.style is None and node.value == text and node.tag in PLAIN
        is_whole &= is_plain or node.style in ("'", '"')
    elif not is_flow:
        is_whole = False
    return read_yaml(text) if is_whole else text
