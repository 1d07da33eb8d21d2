"""Parse XML safely into a tree: document types and entities are refused."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pipeline.errors import CaseError, Code

_DEEPEST = 64


class _RefusedError(Exception):
    """Refuse a construct that no annotation file has."""


def parse_xml(path: Path, data: bytes) -> Element:
    """The root of a document; tags without their name spaces.

    Raises:
        CaseError: E_TRUNCATED when it ends early, E_FORMAT when it is no XML, declares a document type or entities,
            or nests without end.
    """
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate(namespace_separator=" ")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise _RefusedError(f"nests deeper than {_DEEPEST} levels")
        builder.start(name.rpartition(" ")[2], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition(" ")[2])

    def refuse(*_: object) -> NoReturn:
        raise _RefusedError("declares a document type or entities, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003  # a C function without keywords
        return builder.close()
    except _RefusedError as error:
        raise CaseError(Code.E_FORMAT, path, f"{error}; save it again without") from None
    except expat.ExpatError as error:
        cut = error.code in (3, 5)  # no element found; unclosed token
        reason = f"ends early in line {error.lineno}" if cut else f"is not XML (line {error.lineno})"
        raise CaseError(Code.E_TRUNCATED if cut else Code.E_FORMAT, path, f"{reason}; copy the file again") from None
    except (AssertionError, ValueError, LookupError):  # an encoding that Python does not know; a tree left open
        raise CaseError(Code.E_FORMAT, path, "is not XML that can be read; copy the file again") from None
