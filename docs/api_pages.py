"""A small extension for the pages of the API: signatures as they are written, links to where a formula is derived.

Annotations are those of the source (``NDArray[np.float64] | None``), not what they stand for after evaluation. Classes
whose docstring has no parameters are made by functions or class methods: their long constructors are not shown.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

PACKAGE = "ase_kinoson"
BAR = re.compile(r"(``.*?``|`[^`]*`)|(?<!\\)\|")
PAGE = re.compile(r"(?<!`)docs/(\w+)\.md#([\w-]+)")


class _Written:
    """Something whose representation is a given text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def default_text(value: Any) -> str:
    """A default value, short."""
    if isinstance(value, float):
        short = f"{value:g}".replace("e+", "e")
        return short if float(short) == value else repr(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    text = repr(value)
    return "…" if text.startswith("<") else text


def written_signature(function: Any, *, bound: bool = False) -> str:
    """Signature with the annotations of the source; without the first parameter where it is bound."""
    signature = inspect.signature(function)
    parameters = []
    for i, p in enumerate(signature.parameters.values()):
        if bound and i == 0 and p.name in ("self", "cls"):
            continue
        annotation = _Written(p.annotation) if isinstance(p.annotation, str) else p.annotation
        default = p.default if p.default is p.empty else _Written(default_text(p.default))
        parameters.append(p.replace(annotation=annotation, default=default))
    returned = signature.return_annotation
    returned = _Written(returned) if isinstance(returned, str) else returned
    return str(signature.replace(parameters=parameters, return_annotation=returned))


def show_signature(_app: Any, what: str, _name: str, obj: Any, _options: Any, _given: Any, _returns: Any) -> Any:
    """Answer autodoc's question for a signature; None where there is none to write."""
    try:
        if what == "class":
            doc = inspect.getdoc(obj) or ""
            if not re.search(r"^Parameters\n-+$", doc, re.MULTILINE):
                return "", ""
            text = written_signature(obj.__init__, bound=True)
            return text.rpartition(" -> ")[0] or text, ""
        if what in ("function", "method"):
            function = inspect.unwrap(obj)
            arguments, arrow, returned = written_signature(function, bound=what == "method").rpartition(" -> ")
            return (arguments, returned) if arrow else (returned, "")
    except (TypeError, ValueError):
        return None
    return None


def link_pages(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Make ``docs/page.md#heading`` of a docstring a link; leave bars of |x| and a unit such as K alone."""
    for i, line in enumerate(lines):
        line = BAR.sub(lambda m: m[1] or r"\|", line)
        line = re.sub(r"^(\s*)([A-Za-z])\.(?=\s|$)", r"\1\\\2.", line)  # else the first item of a list
        lines[i] = PAGE.sub(lambda m: f"`{m[1]}: {m[2].replace('-', ' ')} <../{m[1]}.html#{m[2]}>`__", line)


def find_name(_app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve a name by its end: names are documented where users find them, not in the modules that define them."""
    from docutils import nodes

    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target:
        return None
    objects = {name: entry for name, entry in env.domains["py"].objects.items() if not entry.aliased}
    ends = target.split(".")
    if len(ends) == 1:
        found = [name for name in objects if name.rpartition(".")[2] == target]
    else:
        inside = ends[0] == PACKAGE
        found = [f"{PACKAGE}.{'.'.join(e)}" for e in ((ends[-2:], ends[-1:]) if inside else (ends,))]
        found = [name for name in found if name in objects]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    uri = env.app.builder.get_relative_uri(node["refdoc"], entry.docname)
    link = nodes.reference("", "", internal=True, refuri=f"{uri}#{entry.node_id}", reftitle=found[0])
    link += content.deepcopy()
    return link


def set_up_names(_app: Any, config: Any) -> None:
    """One parameter per line in long signatures; a name in single backticks is a link where there is one."""
    config.maximum_signature_line_length = 90
    config.default_role = "py:obj"
    config.toc_object_entries_show_parents = "hide"


def setup(app: Any) -> dict[str, Any]:
    """Connect to autodoc, before numpydoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("config-inited", set_up_names, priority=100)
    app.connect("missing-reference", find_name)
    app.connect("autodoc-process-signature", show_signature, priority=100)
    app.connect("autodoc-process-docstring", link_pages, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
