"""What ``/openapi.json`` says of ``/v1/score``, and ``/docs``: the same as a page without scripts."""

from __future__ import annotations

import html
from typing import Any

import pyarrow as pa

from pipeline.service.answers import RESEARCH_NOTICE
from pipeline.service.requests import RequestFields
from pipeline.service.served_models import ServedModels
from pipeline.service.uploads import RAW_TYPES

_MEANINGS = {
    "case_id": "name of the row; 'upload' by default",
    "part": "which of several: the code or UID of a series, the number of a page or frame",
    "find": "true: search the scan for lesions and score what is found; needs a server with a detector",
    "lesions": "JSON list of objects with the fields of a lesion; a row for each",
    "center_x_mm": "lesion centre in world mm, as center_y_mm and center_z_mm",
    "center_y_mm": "see center_x_mm",
    "center_z_mm": "see center_x_mm",
    "coordinate_system": "of the centre: RAS, as NIfTI, or LPS, as DICOM",
}
_REFUSALS = {
    "400": "The request cannot be read",
    "401": "The token is missing or another",
    "408": "The body comes too slowly",
    "413": "Too large, too many files, or an archive that unpacks to too much",
    "415": "The content type is no scan's",
    "422": "Every row is rejected, or the scan cannot be searched: error.code is the first E_ code, error.reason why",
    "500": "A fault of the server: error.code is E_INTERNAL where a row tells more",
    "501": "find was asked of a server without a detector",
    "503": "Busy, or the model is being loaded: Retry-After says when to ask again",
}


def score_operation(models: ServedModels, fields: RequestFields) -> dict[str, Any]:
    """The parts of the OpenAPI operation that its signature does not tell.

    Args:
        models: that score.
        fields: that a request may have.
    """
    texts = {name: {"type": "string", "description": _meaning(name)} for name in fields.all}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    files["description"] = "a NIfTI file, all DICOM files of a series, a zip of them, or a picture"
    form = {"schema": {"type": "object", "required": ["file"], "properties": {"file": files, **texts}}}
    raw = {"schema": {"type": "string", "format": "binary"}}
    answers = {status: _response(words, _refused()) for status, words in _REFUSALS.items()}
    answers["422"] = _response(_REFUSALS["422"], _refused(**_answer(models)))
    answers["200"] = _response(_scored_in_words(models), _scored(models))
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": _meaning(name),
            }
            for name in fields.all
        ],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": form, **dict.fromkeys((*RAW_TYPES, "image/*"), raw)},
        },
        "responses": dict(sorted(answers.items())),
    }


def _meaning(name: str) -> str:
    return _MEANINGS.get(name, "covariate that the model needs, a number")


def _response(words: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": content}}}


def _scored_in_words(models: ServedModels) -> str:
    words = "A row for each lesion; one has a probability at least"
    if models.detector is None:
        return words
    return f"{words}. With find: the scan was searched; its own row, and what was found in it, perhaps nothing"


def _scored(models: ServedModels) -> dict[str, Any]:
    return {"type": "object", "properties": {**_answer(models), "notice": {"type": "string"}}}


def _refused(**others: Any) -> dict[str, Any]:
    error = {
        "type": "object",
        "properties": {"code": {"type": ["string", "null"]}, "reason": {"type": "string"}},
    }
    return {"type": "object", "properties": {"error": error, "notice": {"type": "string"}, **others}}


def _answer(models: ServedModels) -> dict[str, Any]:
    """Score rows and, of a scan that is to be searched, its own row and its candidates."""
    answer: dict[str, Any] = {"rows": {"type": "array", "items": _row(models.score_tables.columns)}}
    tables = models.scan_tables
    if tables is not None:
        scan = _row(tables.scan_columns)
        scan["properties"]["probability_reason"] = {"type": ["string", "null"]}
        answer |= {"scan": scan, "candidates": {"type": "array", "items": _row(tables.candidate_columns)}}
    return answer


def _row(columns: pa.Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {column.name: {"type": [_type(column.type), "null"]} for column in columns},
    }


def _type(column: pa.DataType) -> str:
    if pa.types.is_integer(column):
        return "integer"
    return "number" if pa.types.is_floating(column) else "string"


def docs_page(openapi: dict[str, Any]) -> str:
    """A page about every route; no scripts and nothing from elsewhere, which a hospital's network may not reach.

    Args:
        openapi: the document that it shows.
    """
    parts = [f"<h1>{_text(openapi['info']['title'])} {_text(openapi['info']['version'])}</h1><p>{RESEARCH_NOTICE}</p>"]
    parts.append('<p>As a document: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{method.upper()} {_text(path)}</h2><p>{_text(operation.get('summary', ''))}</p>")
            parts.append(_operation(operation))
    body = "\n".join(parts)
    style = "body{font-family:sans-serif;max-width:60em;margin:2em auto}td{padding:.2em 1em .2em 0;vertical-align:top}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>API</title><style>{style}</style>{body}</html>'


def _operation(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    tables = []
    if content:
        tables.append(f"<p>Body: {_text(', '.join(content))}</p>")
        fields = content["multipart/form-data"]["schema"]["properties"]
        tables.append("<p>Fields, of the form or of the query:</p>")
        tables.append(_table((name, field["description"]) for name, field in fields.items()))
    answers = ((status, answer["description"]) for status, answer in operation["responses"].items())
    return "".join([*tables, "<p>Answers:</p>", _table(answers)])


def _table(rows: Any) -> str:
    cells = "".join(f"<tr><td><code>{_text(name)}</code></td><td>{_text(words)}</td></tr>" for name, words in rows)
    return f"<table>{cells}</table>"


def _text(value: str) -> str:
    return html.escape(str(value))
