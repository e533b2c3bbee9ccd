"""What a function or class takes, read from its source.

Nothing is imported: torch alone takes a second, which help texts, listings of a sweep, finished runs and the analysis
need not wait for. So one signature is enough for a setting's name, type and default.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Union

REQUIRED: Any = object()
"""The default of a setting that has none."""

TYPES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict)}
TYPES |= {"None": type(None), "Sequence": list, "Mapping": dict, "Any": Any}


@dataclass(frozen=True)
class Setting:
    """One argument: its type as far as it is made of Python's own, else Any; its default; its range.

    The range is the text in an annotation such as ``Annotated[float, "in (0, 1]"]``.
    """

    type: Any
    default: Any = REQUIRED
    range: str | None = None


@dataclass(frozen=True)
class Signature:
    """The arguments in their order, and whether any other name is taken, too (``**kwargs``)."""

    settings: Mapping[str, Setting]
    open: bool = False

    def less(self, count: int) -> Signature:
        """Without the first few, which a caller passes by position."""
        return Signature(dict(list(self.settings.items())[count:]), self.open)


@cache
def signature_of(target: str) -> Signature | None:
    """Of ``package.module.name``; None where there is no source to read it from.

    A class takes what its constructor takes or, as a dataclass, its fields; with a base that cannot be read from where
    it is named, such as ``package.Base``, it may take more.
    """
    module, _, name = target.rpartition(".")
    found = _definition(module, name)
    if isinstance(found, ast.ClassDef):
        return _of_class(module, found)
    return None if found is None else _of_function(found, bound=False)


def defaults_of(target: str) -> dict[str, Any]:
    """The defaults in a signature.

    Raises:
        LookupError: it cannot be read.
    """
    signature = signature_of(target)
    if signature is None:
        raise LookupError(f"{target} has no source to read its signature from")
    return {name: s.default for name, s in signature.settings.items() if s.default is not REQUIRED}


def constant(module: str, name: str) -> Any:
    """The value of a literal that a module assigns to a name.

    Raises:
        LookupError: there is none.
    """
    for statement in _body(module):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(statement, ast.Assign)
            return ast.literal_eval(statement.value)
    raise LookupError(f"{module} assigns no literal to {name}")


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definition(module: str, name: str) -> Definition | None:
    """Where the name is defined: in the module, or where the module has it from."""
    for statement in _body(module):
        if isinstance(statement, Definition) and statement.name == name:
            return statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _definition(_absolute(module, statement), alias.name)
    return None


def _absolute(module: str, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    path = _source(module)
    up = statement.level - (path is not None and path.name == "__init__.py")
    base = module.split(".")[: len(module.split(".")) - up]
    return ".".join([*base, *filter(None, [statement.module])])


@cache
def _body(module: str) -> list[ast.stmt]:
    path = _source(module)
    return [] if path is None else ast.parse(path.read_bytes()).body


def _source(module: str) -> Path | None:
    """The file of a module, found without running its parents."""
    places: Any = None
    origin = None
    for i, _ in enumerate(parts := module.split(".")):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), places)
        if spec is None:
            return None
        origin, places = spec.origin, spec.submodule_search_locations or []
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _of_class(module: str, node: ast.ClassDef) -> Signature | None:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(statement, bound=True)
    inherited: dict[str, Setting] = {}
    unread = False
    for base in node.bases:
        found = _definition(module, base.id) if isinstance(base, ast.Name) else None
        unread = unread or (found is None and ast.unparse(base).rpartition(".")[2] != "NamedTuple")
        if isinstance(found, ast.ClassDef) and (signature := _of_class(module, found)) is not None:
            inherited |= signature.settings
            unread = unread or signature.open
    if not _is_record(node):
        return Signature(inherited, unread) if inherited else None
    fields = {
        statement.target.id: _setting(statement.annotation, statement.value)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return Signature(inherited | fields, unread)


def _is_record(node: ast.ClassDef) -> bool:
    """Whether the constructor is made from the class's fields."""
    decorators = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    return any(
        ast.unparse(item).rpartition(".")[2] in ("dataclass", "NamedTuple") for item in (*decorators, *node.bases)
    )


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
    pairs = [*zip(positional, defaults, strict=True)][bound:]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return Signature({a.arg: _setting(a.annotation, default) for a, default in pairs}, args.kwarg is not None)


def _setting(annotation: ast.expr | None, default: ast.expr | None) -> Setting:
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", None) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        kind, allowed, *_ = annotation.slice.elts
        return Setting(_type(kind), _default(default), str(ast.literal_eval(allowed)))
    return Setting(_type(annotation), _default(default))


def _default(node: ast.expr | None) -> Any:
    """Its value; Any's own stand-in, None, where it is more than a literal."""
    if node is None:
        return REQUIRED
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _type(node: ast.expr | None) -> Any:
    """The annotation as a type; of a union, the parts that are Python's own."""
    kinds = [kind for kind in _alternatives(node) if kind is not None]
    if not kinds or Any in kinds:
        return Any
    return Union[tuple(kinds)]  # noqa: UP007  # of types known only here


def _alternatives(node: ast.expr | None) -> Iterator[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _alternatives(node.left)
        yield from _alternatives(node.right)
    elif isinstance(node, ast.Constant) and node.value is None:
        yield type(None)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _alternatives(ast.parse(node.value, mode="eval").body)
    elif isinstance(node, ast.Name):
        yield TYPES.get(node.id)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        yield _generic(node.value.id, node.slice)
    else:
        yield None


def _generic(name: str, inside: ast.expr) -> Any:
    """Such as ``list[int]`` and ``tuple[float, float]``; of what is inside, only Python's own types."""
    parts = [_type(part) for part in (inside.elts if isinstance(inside, ast.Tuple) else [inside])]
    if name == "Optional":
        return Union[(parts[0], type(None))]  # noqa: UP007
    kind = TYPES.get(name)
    if kind not in (list, tuple, dict) or any(isinstance(part, type(...)) for part in parts):
        return kind
    return kind[tuple(parts)] if kind is not list else list[parts[0]]  # type: ignore[valid-type]
