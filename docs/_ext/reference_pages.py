"""A Sphinx extension that writes the reference pages from the program: commands, configuration keys, codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from typer.testing import CliRunner

from pipeline.cli import app as command_line
from pipeline.codes import Code
from pipeline.config.detection import DetectionConfig
from pipeline.config.experiment import Config

WIDTH = 100  # columns of a help text
COMMANDS = (
    "`malignancy` and `python -m pipeline` are the same command. Exit codes: 0 done; 1 done, but some cases were "
    "rejected or a gate refused; 2 wrong usage, configuration or table; 3 could not finish.\n"
)
CONFIGURATION = (
    "A configuration is one YAML file; unknown keys are refused. On the command line, `section.key=value` overrides a "
    "key. Keys without a default must be given. Those of a detector (`task: detection`) stand last.\n"
)
CODES = (
    "`E_` codes reject a case: its row has no probability. `W_` codes flag it: it is scored. The row's reason names "
    "the value that was found.\n"
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda sphinx: write_pages(Path(sphinx.srcdir) / "reference"))
    return {"parallel_read_safe": True}


def write_pages(folder: Path) -> None:
    """Write ``command-line.md``, ``configuration.md`` and ``codes.md``; each only if it changes."""
    for name, text in (
        ("command-line.md", command_page()),
        ("configuration.md", configuration_page()),
        ("codes.md", codes_page()),
    ):
        write_if_changed(folder / name, text)


def write_if_changed(page: Path, text: str) -> None:
    """Write a page; one that would not change is left alone, so that Sphinx does not read it again."""
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")


def command_page() -> str:
    """What ``--help`` says of every command."""
    parts = [
        "# Command line\n",
        COMMANDS,
    ]
    for words in command_names():
        parts += [f"## malignancy {' '.join(words)}\n", f"```text\n{help_text(words)}\n```\n"]
    return "\n".join(parts)


def command_names() -> Iterator[tuple[str, ...]]:
    """The words after ``malignancy`` of every command, in the order of its help."""
    for command in command_line.registered_commands:
        yield (command.name or command.callback.__name__.replace("_", "-"),)
    for group in command_line.registered_groups:
        for command in group.typer_instance.registered_commands:
            yield (group.name, command.name or command.callback.__name__.replace("_", "-"))


def help_text(words: tuple[str, ...]) -> str:
    """The help of a command, as it is printed."""
    settings = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    result = CliRunner().invoke(command_line, [*words, "--help"], env=settings, prog_name="malignancy")
    if result.exit_code != 0:
        raise RuntimeError(f"malignancy {' '.join(words)} --help: exit code {result.exit_code}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def configuration_page() -> str:
    """Every key of a configuration, with type, default and meaning."""
    parts = [
        "# Configuration\n",
        CONFIGURATION,
    ]
    detection = [(f"detection: {title or 'top level'}", model) for title, model in sections(DetectionConfig)]
    for title, model in [*sections(Config), *detection]:
        parts += [f"## {title or 'top level'}\n", f"{' '.join((model.__doc__ or '').split())}\n"]
        parts += ["| key | type | default | meaning |", "|---|---|---|---|"]
        parts += [
            f"| `{name}` | {type_name(field.annotation)} | {default_text(field)} | {field.description} |"
            for name, field in model.model_fields.items()
            if not is_section(field.annotation)
        ]
        parts.append("")
    return "\n".join(parts)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Dotted names and models of a configuration's sections, the whole first, which has no name."""
    yield prefix, model
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from sections(inner, f"{prefix}.{name}" if prefix else name)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds; None for a value."""
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def is_section(annotation: Any) -> bool:
    """Whether a key holds a section that is always there."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def type_name(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(options[0])
    if origin is Literal:
        return " or ".join(f"`{option}`" for option in options)
    if origin in (Union, UnionType):
        return " or ".join(type_name(option) for option in options)
    if origin is tuple:
        return f"list of {type_name(options[0])}"
    if origin is dict:
        return f"mapping to {type_name(options[1])}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", NoneType: "`null`"}
    if section_of(annotation):
        return "section"
    return names.get(annotation, "any value")


def default_text(field: FieldInfo) -> str:
    """A default as it would be written in the file."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "*must be given*"
    if isinstance(default, BaseModel):
        return "as below"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default is None:
        return "`null`"
    if isinstance(default, tuple | list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`"


def codes_page() -> str:
    """Every code, with its cause and the remedy."""
    parts = [
        "# Codes\n",
        CODES,
        "| code | cause | remedy |",
        "|---|---|---|",
        *(f"| `{code}` | {code.cause} | {code.remedy} |" for code in Code),
        "",
    ]
    return "\n".join(parts)
