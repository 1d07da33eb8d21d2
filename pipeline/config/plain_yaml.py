"""Load YAML of plain values, without the constructs that make a small file large."""

from __future__ import annotations

import re
from typing import Any

import yaml

_MOST_BYTES = 1_000_000
_DEEPEST = 20  # sections within sections
_LARGEST = 2**53  # beyond it, a float cannot hold every integer


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses keys given twice (YAML would keep the last), aliases, depth and giant numbers.

    It reads 1e-3 as a number.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("an alias (*) stands for another value, which a small file could make large; write it out")
        if self._depth >= _DEEPEST:
            self._refuse(f"sections lie more than {_DEEPEST} deep; nothing here needs that")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.MarkedYAMLError(problem=f"key {twice[0]!r} stands twice; keep one", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node) if len(node.value) <= _LONGEST_INTEGER else _LARGEST + 1
        if abs(value) > _LARGEST:
            raise yaml.MarkedYAMLError(
                problem=f"a number of more than {_LARGEST:,}; nothing here needs that", problem_mark=node.start_mark
            )
        return value

    def _refuse(self, problem: str) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())


_LONGEST_INTEGER = 100  # characters, in whatever base
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(  # YAML 1.1 requires the dot in 1.0e-3, which users leave out
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Plain values of one document.

    Raises:
        YAMLError: when it is none, is larger than a megabyte, or holds what no settings need; ``problem`` says what.
    """
    if len(text) > _MOST_BYTES:
        raise yaml.MarkedYAMLError(problem=f"{len(text):,} characters, expected at most {_MOST_BYTES:,}")
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except ValueError as error:  # a date that is none
        raise yaml.MarkedYAMLError(problem=str(error)) from None
    finally:
        loader.dispose()
