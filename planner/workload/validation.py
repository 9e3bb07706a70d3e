"""From pydantic's list of errors to the one message a person can act on."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from planner.documents import Document
from planner.errors import InputError, nearest
from planner.units import UnitError

M = TypeVar("M", bound=BaseModel)
WORDS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "a text", "bool_type": "true or false", "list_type": "a list",
    "dict_type": "a table", "model_type": "a table", "finite_number": "a finite number",
    "model_attributes_type": "a table",
}  # fmt: skip


def validate(kind: type[M], document: Document) -> M:
    """An instance of ``kind`` from a document's data; InputError for the first real problem.

    Names file, key, line, what was expected and the nearest known key.
    """
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        raise _first(kind, document, error) from None


def _first(kind: type[BaseModel], document: Document, error: ValidationError) -> InputError:
    problems = error.errors(include_url=False)
    # a wrong branch of a union is noise: prefer the problem deepest in the data that exists
    ranked = sorted(problems, key=lambda p: (_rank(p), -len(_path(p))))
    return _message(kind, document, ranked[0])


def _rank(problem: Any) -> int:
    kind = problem["type"]
    if kind == "extra_forbidden":
        return 0
    cause = (problem.get("ctx") or {}).get("error")
    if isinstance(cause, UnitError) and isinstance(problem.get("input"), dict):
        return 3  # the number branch of "a table or a number", given a table
    return 2 if kind in ("model_type", "model_attributes_type", "dict_type") else 1


def _path(problem: Any) -> tuple[str | int, ...]:
    """Location in the data: union branches and validator names taken out."""
    keys: list[str | int] = []
    for part in problem["loc"]:
        if isinstance(part, str) and (part[:1].isupper() or "[" in part or part in ("float", "bool")):
            continue
        if isinstance(part, str) and part.startswith(("function-", "literal", "constrained")):
            continue
        keys.append(part)
    return tuple(keys)


def _message(kind: type[BaseModel], document: Document, problem: Any) -> InputError:
    path = _path(problem)
    what, given = problem["type"], problem.get("input")
    context = problem.get("ctx") or {}
    if what == "extra_forbidden":
        path = (*_path({"loc": problem["loc"][:-1]}), problem["loc"][-1])  # the key is the user's, not a branch
        known = _fields_at(kind, path[:-1])
        close = nearest(str(path[-1]), known)
        return document.error(path, "unknown key", "one of " + ", ".join(sorted(known)), close)
    if what == "missing":
        return document.error(path, "is missing")
    cause = context.get("error")
    if isinstance(cause, UnitError):
        return document.error(path, str(cause), cause.expected, cause.suggestion)
    if isinstance(cause, InputError):
        return cause
    if what == "literal_error":
        choices = [c.strip("' ") for c in str(context["expected"]).replace(" or ", ", ").split(",")]
        close = nearest(given, choices) if isinstance(given, str) else None
        return document.error(path, f"is {given!r}", "one of " + ", ".join(choices), close)
    if what in WORDS:
        return document.error(path, f"is {given!r}", WORDS[what])
    bounds = {
        "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
    }  # fmt: skip
    if what in bounds:
        words, key = bounds[what]
        return document.error(path, f"is {given!r}", f"{words} {context[key]:g}")
    if what in ("too_short", "string_too_short"):
        return document.error(path, "is empty", "at least one entry")
    text = str(problem["msg"]).removeprefix("Value error, ")
    return document.error(path, text[0].lower() + text[1:])


def _fields_at(kind: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Field names of the model at a path of the data."""
    here: Any = kind
    for part in path:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) if _is_model(here) else None
        here = _model_in(field.annotation) if field else None
        if here is None:
            return []
    return list(here.model_fields) if _is_model(here) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _model_in(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None
