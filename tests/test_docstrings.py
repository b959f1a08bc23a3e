"""Every public name is documented completely: parameters, shapes, units, errors, and where its formulas come from.

Public are the names of `ak.__all__`, of `ase_kinoson.testing` and `ase_kinoson.units`, the Protocols of what one
brings, and the methods and properties of all these classes that the package itself defines.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ase_kinoson as ak
import ase_kinoson.errors
import ase_kinoson.testing
import ase_kinoson.units
from ase_kinoson.errors import KinosonError

DOCS = Path(__file__).parents[1] / "docs"

# docs/ is no package: its extension of Sphinx is loaded by its path
_spec = importlib.util.spec_from_file_location("api_pages", DOCS / "api_pages.py")
assert _spec is not None and _spec.loader is not None
api_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_pages)

ORDER = "Parameters Returns Yields Attributes Raises Warns Notes References Examples".split()

PROTOCOLS = {
    "BarrierSource": "barriers.source",
    "JumpEnergies": "barriers.source",
    "EnergyModel": "barriers.source",
    "RateSource": "kinetics.rates",
    "TrainingBarriers": "barriers.training_sets",
}

FORMULAS = """
FiveFrequency KinosonDensity ShortRangeOrder VacancyFormation VacancyFraction active_barriers carrying_jumps
casm_coefficients compare_slopes compute_pairs correct deepen draw_neighbors energy_drift exact_transport extrapolate
finite_size_corrected first_rung fit_temperature_models interdiffusion intrinsic_diffusivities mobilities
obstructed_diffusion percolation_threshold pool_states principal_axes reweight run_kmc sample_drift
sample_with_calculator static_transport train_relaxation transport vacancy_formation vacancy_wind vegard warren_cowley
""".split()
"""Names whose numbers come from a formula that is not plain from the name: they say where it is from."""

SHAPE = re.compile(r"\bshapes?\b|\((?:[\w+]+, ?)+[\w+]*\)")
UNIT = re.compile(
    r"\beV\b|Å|\bK\b|s⁻¹|\bs\b|m²/s|THz|\bGPa\b|\bPa\b|\bJ/|\b1/s\b|degrees|\bmol\b|k_B\b|unit|arbitrary"
    r"|\bc_v\b|(?i:fraction|ratio\b|share|factor|probabilit|relative|weight|number of|logarithm)"
)
"""A unit, or words for what has none."""
INTEGERS = re.compile(r"\bof (int\d*|bool|str)\b")
ELSEWHERE = re.compile(r"\b[Aa]s (?:in|of|with) :")
"""The text is that of another name; its own is checked there."""

UNIT_IN_NAME = re.compile(r"_(K|eV|Pa|kB|s|A)$|^(weights?|.*_factor|.*_fraction)$")

HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}\s*$", re.MULTILINE)
CITATION = re.compile(r"[A-Z][\w.-]+[^\n]*,[^\n]*(?:\n[^\n]*)?\((?:1[89]|20)\d\d\)")
PLACE = re.compile(r"docs/(\w+\.md)#([\w-]+)")


# -- what a docstring says ---------------------------------------------------------------------------------------------


def sections(doc: str) -> dict[str, str]:
    """Parts of a numpydoc docstring by heading; what stands before the first has the key ''."""
    parts = HEADING.split(doc)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> dict[str, str]:
    """Texts of the entries of a section by name; names that share an entry share its text."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=\S)", section, flags=re.MULTILINE):
        names, _, kind = entry.partition("\n")[0].partition(" : ")
        for name in names.split(","):
            if name.strip():
                found[name.strip(" *`")] = f"{kind}\n{entry.partition(chr(10))[2]}"
    return found


def kind_of(annotation: Any) -> str:
    """ "array", "number" or "", after an annotation as it is written."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if re.search(r"NDArray|ArrayLike|\bndarray", text):
        return "whole array" if re.search(r"np\.(u?int|bool|str|object)|NDArray\b(?!\[)", text) else "array"
    return "number" if re.search(r"\bfloat\b|\bQuantity\b", text) else ""


def lacking(where: str, name: str, annotation: Any, text: str) -> Iterator[str]:
    """What the text of one parameter, attribute or result does not say."""
    kind = kind_of(annotation)
    if not text.partition("\n")[2].strip() and "\n" in text:
        yield f"{where}: no word about {name}"
    if "array" in kind and not SHAPE.search(text) and not ELSEWHERE.search(text):
        yield f"{where}: no shape of {name}"
    if kind in ("array", "number") and not (
        UNIT.search(text) or INTEGERS.search(text) or UNIT_IN_NAME.search(name) or ELSEWHERE.search(text)
    ):
        yield f"{where}: no unit of {name}"


# -- what a function raises --------------------------------------------------------------------------------------------


@functools.cache
def tree(function: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


class _Raises(ast.NodeVisitor):
    """Names of what a body raises and the helpers that it calls, without what it catches and nested functions."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.raised: set[str] = set()
        self.called: set[str] = set()
        self._caught: list[set[str]] = []

    def _add(self, name: str) -> None:
        if not any(name in names or "Exception" in names for names in self._caught):
            self.raised.add(name)

    def visit_Raise(self, node: ast.Raise) -> None:
        exception = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(exception, ast.Name) and exception.id[:1].isupper():
            self._add(exception.id)
        self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        kinds = {n.id for h in node.handlers if h.type for n in ast.walk(h.type) if isinstance(n, ast.Name)}
        for several in [self.names[k] for k in kinds if isinstance(self.names.get(k), tuple)]:
            kinds |= {kind.__name__ for kind in several}
        self._caught.append(kinds)
        for part in node.body:
            self.visit(part)
        self._caught.pop()
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if not self._caught:
                self.called.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if not self._caught:
                self.called.add(f"self.{name}")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        pass  # what it raises belongs to whoever calls it

    visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_FunctionDef


def raises(function: Any, owner: type | None = None, *, depth: int = 2) -> set[str]:
    """Names of the exceptions that a function raises, itself or in private helpers of its own module or class."""
    function = inspect.unwrap(function)
    visitor = _Raises(function.__globals__)
    for node in getattr(tree(function).body[0], "body", []):  # type: ignore[attr-defined]
        visitor.visit(node)
    found = set(visitor.raised)
    for name in visitor.called if depth else ():
        helper = getattr(owner, name[5:], None) if name.startswith("self.") else function.__globals__.get(name)
        helper = getattr(helper, "__func__", helper)
        if name.removeprefix("self.").startswith("_") and inspect.isfunction(helper):
            if helper.__module__ == function.__module__:
                found |= raises(helper, owner, depth=depth - 1)
    return found


NEVER = {"ak.CompositionMap.rows", "ak.TemperatureSeries.as_rows"}
"""Methods whose helpers raise, but not for the arguments that they get there; keep it short."""


def undocumented_errors(where: str, function: Any, doc: str, owner: type | None = None) -> Iterator[str]:
    function = inspect.unwrap(function)
    named = entries(sections(doc).get("Raises", ""))
    for name in sorted(raises(function, owner) if where not in NEVER else ()):
        exception = function.__globals__.get(name) or getattr(__import__("builtins"), name, None)
        mro = exception.__mro__ if inspect.isclass(exception) else ()
        bases = {b.__name__ for b in mro if b.__module__.startswith(ak.__name__)}
        if not {name, *bases} & set(named):
            yield f"{where}: raises {name}, which its docstring does not say"


# -- what a name lacks -------------------------------------------------------------------------------------------------


def faults_of_function(where: str, function: Any, owner: type | None = None) -> Iterator[str]:
    """What the docstring of a function or method lacks."""
    doc = inspect.getdoc(getattr(owner, function.__name__, function) if owner else function) or ""
    if not doc:
        yield f"{where}: no docstring"
        return
    parts = sections(doc)
    known = entries(parts.get("Parameters", ""))
    signature = inspect.signature(function)
    for p in signature.parameters.values():
        if p.name in ("self", "cls") or p.name.startswith("_"):
            continue
        if p.name in known:
            yield from lacking(where, p.name, p.annotation, known[p.name])
        else:
            yield f"{where}: no parameter {p.name}"
    taken = {p.name for p in signature.parameters.values()}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    yield from (f"{where}: documents {n}, which it does not take" for n in known if n not in taken and not open_ended)
    if list(parts)[1:] != sorted(list(parts)[1:], key=lambda name: ORDER.index(name) if name in ORDER else 99):
        yield f"{where}: found the sections {list(parts)[1:]}; expected the order {ORDER}"
    returned = parts.get("Returns", "") or parts.get("Yields", "") or doc
    yield from lacking(where, "the result", signature.return_annotation, returned)
    yield from undocumented_errors(where, function, doc, owner)


def faults_of_class(where: str, cls: type) -> Iterator[str]:
    """What the docstrings of a class, its methods and its properties lack."""
    doc = inspect.getdoc(cls) or ""
    if not doc or doc.startswith(f"{cls.__name__}("):  # what dataclasses make by themselves
        yield f"{where}: no docstring"
        return
    known: dict[str, str] = {}
    for base in reversed([b for b in cls.__mro__ if b.__module__.startswith(ak.__name__)]):
        parts = sections(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
        known |= entries(parts.get("Parameters", "")) | entries(parts.get("Attributes", ""))
    if dataclasses.is_dataclass(cls):
        needed = [(f.name, f.type) for f in dataclasses.fields(cls) if not f.name.startswith("_")]
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        needed = [(p.name, p.annotation) for p in parameters if not p.name.startswith("_")]
    else:
        needed = []
    made = any(re.search(rf":meth:`\.?{name}`", doc) for name in vars(cls)) and not dataclasses.is_dataclass(cls)
    for name, annotation in needed:
        if name in known:
            yield from lacking(where, name, annotation, known[name])
        elif not made:  # a class that methods make need not say how to call it
            yield f"{where}: no parameter or attribute {name}"
    for maker in ("__init__", "__post_init__"):
        if maker in vars(cls) and inspect.isfunction(vars(cls)[maker]) and not (made and maker == "__init__"):
            if not is_generated(vars(cls)[maker]) and not getattr(cls, "_is_protocol", False):
                yield from undocumented_errors(where, vars(cls)[maker], doc, cls)


def is_generated(function: Any) -> bool:
    return function.__code__.co_filename.startswith("<")


def members(cls: type) -> dict[str, tuple[type, Any]]:
    """Public methods and properties that the package defines, with the class that does; nearest first."""
    found: dict[str, tuple[type, Any]] = {}
    for base in cls.__mro__:
        if base.__module__.split(".")[0] == ak.__name__:
            for name, member in vars(base).items():
                if not name.startswith("_"):
                    found.setdefault(name, (base, member))
    return found


def faults_of_member(where: str, owner: type, member: Any) -> list[str]:
    if isinstance(member, property | functools.cached_property):
        function = member.fget if isinstance(member, property) else member.func
        doc = inspect.getdoc(member) or ""
        if not doc:
            return [f"{where}: no docstring"]
        found = list(lacking(where, "the value", inspect.signature(function).return_annotation, doc))
        return found + list(undocumented_errors(where, function, doc, owner))
    function = getattr(member, "__func__", member)
    return list(faults_of_function(where, function, owner)) if inspect.isfunction(function) else []


def faults(where: str, what: Any) -> list[str]:
    """What the docstring of a public name lacks, without its methods."""
    if inspect.isclass(what):
        return list(faults_of_class(where, what))
    return list(faults_of_function(where, what)) if inspect.isfunction(what) else []


def sourceless(where: str, what: Any) -> list[str]:
    """Whether a name with a formula says neither who published it nor where it is derived."""
    docs = [inspect.getdoc(what) or ""]
    if inspect.isclass(what):
        docs += [inspect.getdoc(m) or "" for _, m in members(what).values()]
    text = "\n".join(docs)
    places = PLACE.findall(text)
    dead = [
        f"{where}: found docs/{p}#{a}; expected a page and a heading of it" for p, a in places if a not in anchors(p)
    ]
    return dead or ([] if places or CITATION.search(text) else [f"{where}: no source of its formula"])


@functools.cache
def anchors(page: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    path = DOCS / page
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    words = [re.sub(r"^#+ +|[`*]", "", line).lower() for line in lines if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", w).strip().replace(" ", "-") for w in words}


# -- all names ---------------------------------------------------------------------------------------------------------


@functools.cache
def public_names() -> dict[str, Any]:
    found = {f"ak.{name}": getattr(ak, name) for name in ak.__all__}
    found |= {f"ak.testing.{name}": getattr(ak.testing, name) for name in ak.testing.__all__}
    found |= {f"ak.units.{name}": x for name, x in vars(ak.units).items() if inspect.isfunction(x)}
    return found | {
        f"ak.{place}.{n}": getattr(import_module(f"ase_kinoson.{place}"), n) for n, place in PROTOCOLS.items()
    }


@functools.cache
def public_members() -> dict[str, tuple[type, Any]]:
    """Methods and properties of all public classes; one that several inherit counts once."""
    found: dict[tuple[type, str], tuple[str, type, Any]] = {}
    for where, cls in public_names().items():
        if inspect.isclass(cls):
            for name, (owner, member) in members(cls).items():
                found.setdefault((owner, name), (f"{where}.{name}", owner, member))
    return {where: (owner, member) for where, owner, member in found.values()}


def report() -> tuple[int, int, list[str]]:
    """How many names are complete, how many there are, and what the others lack."""
    wrong = [faults(where, what) for where, what in public_names().items()]
    wrong += [faults_of_member(where, *what) for where, what in public_members().items()]
    return sum(not w for w in wrong), len(wrong), [x for w in wrong for x in w]


def test_all_names_are_documented_completely():
    complete, total, missing = report()
    assert complete == total, f"{complete} of {total} public names are documented completely:\n" + "\n".join(missing)
    assert len(public_names()) > 130 and total > 500


def test_every_name_is_found():
    names = public_names()
    assert {f"ak.{name}" for name in ak.__all__} <= set(names)
    assert {where for where, what in names.items() if not (inspect.isfunction(what) or inspect.isclass(what))} == set()
    expected = {"ak.Alloy.from_atoms", "ak.Transport.numbers", "ak.KinosonDensity.contribution"}
    assert expected <= set(public_members())
    assert not any(where.rpartition(".")[2].startswith("_") for where in public_members())


# -- the page of the API -----------------------------------------------------------------------------------------------


def listed(page: str) -> list[str]:
    """Full names in the autosummary tables of a page, in their order."""
    found, module = [], ""
    for line in page.splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   ~?[\w.]+", line):
            found.append(f"{module}.{line.strip(' ~')}")
    return found


def test_the_page_lists_every_name_once():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = listed(page)
    assert ".. automodule:: ase_kinoson.units\n   :members:" in page
    assert [name for name in set(names) if names.count(name) > 1] == []
    for module, public in (("ase_kinoson", ak.__all__), ("ase_kinoson.testing", ak.testing.__all__)):
        assert {name for name in names if name.rpartition(".")[0] == module} == {f"{module}.{name}" for name in public}
    assert {f"ase_kinoson.{place}.{name}" for name, place in PROTOCOLS.items()} <= set(names)
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(import_module(module), last), f"docs/api.md lists {name}, which does not exist"
    errors = {f"ase_kinoson.errors.{n}" for n, x in vars(ak.errors).items() if inspect.isclass(x)}
    assert errors <= {*names, "ase_kinoson.errors.KinosonError", "ase_kinoson.errors.KinosonWarning"}


def test_lists_of_names_are_read():
    page = ".. currentmodule:: a.b\n\n.. autosummary::\n   :toctree: x/\n\n   One\n   two\n"
    page += "\n.. currentmodule:: c\n   One\n   ~d.e.Two\n"
    assert listed(page) == ["a.b.One", "a.b.two", "c.One", "c.d.e.Two"]


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_name_their_source(name):
    assert sourceless(name, getattr(ak, name)) == []


def test_exceptions_of_the_checks_are_needed():
    for where in NEVER:
        owner, member = public_members()[where]
        assert raises(getattr(member, "fget", member), owner), f"{where} raises nothing; take it out of NEVER"
    assert len(NEVER) <= 3
    assert len(set(FORMULAS)) == len(FORMULAS) > 30


def test_signatures_are_those_of_the_source():
    text = api_pages.written_signature(ak.transport)
    assert "vacancy_fraction: float | VacancyFraction | None = None" in text
    assert "attempt_frequency: float = 1e13" in text and text.endswith(" -> Transport")
    assert api_pages.written_signature(ak.States.write, bound=True) == "(path: str | Path) -> None"
    assert api_pages.written_signature(ak.States.write).startswith("(self, ")
    assert [api_pages.default_text(x) for x in (0.1, 1 / 3, 2e-5, "a", complete, object())] == [
        "0.1",
        repr(1 / 3),
        "2e-05",
        "'a'",
        "complete",
        "…",
    ]
    assert api_pages.show_signature(None, "class", "", ak.Transport, None, None, None) == ("", "")
    assert api_pages.show_signature(None, "class", "", ak.FiveFrequency, None, None, None)[0].startswith("(solute: str")


def test_docstrings_become_pages():
    lines = ["    K.", "    s⁻¹; |x| of ``|y|``.", "See docs/theory.md#which-states.", "Keep `docs/theory.md#x`."]
    api_pages.link_pages(None, "", "", None, None, lines)
    assert lines == [
        r"    \K.",
        r"    s⁻¹; \|x\| of ``|y|``.",
        "See `theory: which states <../theory.html#which-states>`__.",
        "Keep `docs/theory.md#x`.",
    ]


# -- the checks see what is wrong --------------------------------------------------------------------------------------


def complete(energies: NDArray[np.float64], temperature_K: float, *, n: int = 1, **options: Any) -> NDArray[np.float64]:
    """Weigh states.

    Parameters
    ----------
    energies : ndarray, shape (n_states,)
        eV.
    temperature_K
        Of the states.
    n
        Repeats.
    **options
        Passed on.

    Returns
    -------
    ndarray, shape (n_states,)
        Weights.

    Raises
    ------
    KinosonError
        If n is not positive.
    ValueError
        If there are no energies.

    Notes
    -----
    A. Author, Phys. Rev. B 1, 2 (1999); docs/theory.md#which-states.
    """
    if n < 1:
        raise KinosonError("found n below 1; expected 1; raise it")
    return _weigh(energies) / temperature_K


def _weigh(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(energies):
        raise ValueError("found no energies; expected some; give them")
    try:
        raise OSError("caught")
    except OSError:
        return energies


DOC = inspect.getdoc(complete) or ""

BROKEN = {
    "no parameter energies": ("energies : ndarray, shape (n_states,)\n    eV.\n", ""),
    "no parameter n": ("n\n    Repeats.\n", ""),
    "no parameter options": ("**options\n    Passed on.\n", ""),
    "no shape of energies": ("energies : ndarray, shape (n_states,)", "energies : ndarray"),
    "no shape of the result": ("-------\nndarray, shape (n_states,)", "-------\nndarray"),
    "no unit of energies": ("    eV.", "    Of the states."),
    "no unit of the result": ("    Weights.", "    Numbers."),
    "raises KinosonError": ("KinosonError\n    If n is not positive.\n", ""),
    "raises ValueError": ("ValueError\n    If there are no energies.\n", ""),
    "found the sections": ("Raises\n------", "Examples\n--------"),
    "no docstring": (DOC, ""),
}


def with_doc(doc: str) -> Any:
    twin = types.FunctionType(complete.__code__, complete.__globals__, "complete", complete.__defaults__)
    twin.__kwdefaults__, twin.__annotations__ = complete.__kwdefaults__, complete.__annotations__
    twin.__module__, twin.__doc__ = complete.__module__, doc
    return twin


def test_a_complete_docstring_passes():
    assert faults("complete", complete) == []
    assert sourceless("complete", complete) == []
    assert raises(complete) == {"KinosonError", "ValueError"}  # that of its helper, and not what that one catches


@pytest.mark.parametrize("fault", BROKEN)
def test_lacking_docstrings_are_found(fault):
    old, new = BROKEN[fault]
    assert old in DOC
    found = faults("twin", with_doc(DOC.replace(old, new)))
    assert any(fault in line for line in found), found


def test_parameters_that_are_none_are_found():
    def plain(x: int) -> int:
        """Say it.

        Parameters
        ----------
        x
            Something.
        y
            Nothing.
        """
        return x

    assert faults("plain", plain) == ["plain: documents y, which it does not take"]


def test_lacking_sources_are_found():
    assert sourceless("twin", with_doc(DOC.replace("A. Author, Phys. Rev. B 1, 2 (1999); docs/", "See /"))) != []
    assert sourceless("twin", with_doc(DOC.replace("#which-states", "#no-such"))) != []
    assert sourceless("twin", with_doc(DOC.replace("docs/theory.md", "docs/no_such.md"))) != []
    assert sourceless("twin", with_doc(DOC.replace("; docs/theory.md#which-states", ""))) == []
    assert sourceless("twin", with_doc("We ran it in 2024 with 100 states.")) != []


def test_lacking_classes_are_found():
    @dataclasses.dataclass
    class Bare:
        x: float

    @dataclasses.dataclass
    class Half:
        """Say it.

        Attributes
        ----------
        x : float
            Something.
        """

        x: float
        y: int = 0

        def __post_init__(self) -> None:
            if self.y:
                raise KinosonError("found y; expected none; leave it out")

    class Known:
        """Say it; make one with :meth:`make`."""

        def __init__(self, x: int) -> None:
            self.x = x

        @property
        def energy(self) -> float:
            """That of it."""
            return 0.0

        @classmethod
        def make(cls, x: int) -> Known:
            """Make one."""
            return cls(x)

        def twice(self, x: NDArray[np.float64]) -> int:
            """Double x.

            Parameters
            ----------
            x
                Some.
            """
            raise KinosonError("found x; expected none; leave it out")

        def say(self):
            pass

    for cls in (Bare, Half, Known):
        cls.__module__ = "ase_kinoson.twin"
    assert faults("Bare", Bare) == ["Bare: no docstring"]
    assert faults("Half", Half) == [
        "Half: no unit of x",
        "Half: no parameter or attribute y",
        "Half: raises KinosonError, which its docstring does not say",
    ]
    assert faults("Known", Known) == []
    found = {name: faults_of_member(name, *what) for name, what in members(Known).items()}
    assert found == {
        "energy": ["energy: no unit of the value"],
        "make": ["make: no parameter x"],
        "twice": [
            "twice: no shape of x",
            "twice: no unit of x",
            "twice: raises KinosonError, which its docstring does not say",
        ],
        "say": ["say: no docstring"],
    }
    Known.__doc__ = "Say it."
    assert faults("Known", Known) == ["Known: no parameter or attribute x"]
