"""The examples of docs/ecosystem.md."""

import ast
import re

from conftest import ROOT

PAGE = (ROOT / "docs/ecosystem.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.S))
"""By file."""


def defined(file, name):
    """A class of an example, without the rest of it being run."""
    tree = ast.parse(EXAMPLES[file])
    wanted = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) or _name(node) == name]
    space = {}
    exec(compile(ast.Module(wanted, []), file, "exec"), space)
    return space[name]


def _name(node):
    return getattr(node, "name", None)
