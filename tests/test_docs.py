"""The documentation holds together: pages are listed, links lead somewhere, names exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ase_kinoson as ak

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
WITH_CODE = [ROOT / "README.md", *PAGES, *SCRIPTS]

FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


SKIPPED = {"docs/campaigns.md": 3, "docs/installation.md": 1}
"""How many blocks of a page `make docs` never runs, at most; 0 where it is not listed. Keep it short."""

# docs/ is no package: blocks.py is loaded by its path, as docs/conftest.py does
_spec = importlib.util.spec_from_file_location("page_blocks", DOCS / "blocks.py")
assert _spec is not None and _spec.loader is not None
page_blocks = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = page_blocks
_spec.loader.exec_module(page_blocks)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def toctree(index: str) -> list[str]:
    """Entries of all toctrees of a page, as `page` or `Title <page>`."""
    found = []
    for block in re.findall(r"^(`{3,}|:{3,})\{toctree\}\n(.*?)^\1[ \t]*$", index, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in block[1].splitlines()]
        found += [re.sub(r".*<(.*)>$", r"\1", line) for line in lines if line and not line.startswith(":")]
    return found


def unlisted(pages: dict[str, str]) -> set[str]:
    """Pages (texts by their path without suffix) that no toctree that can be reached from the index lists."""
    seen, left = set(), ["index"]
    while left:
        page = left.pop()
        if page in seen or page not in pages:
            continue
        seen.add(page)
        folder = page.rpartition("/")[0]
        left += [
            entry.removesuffix(".md").lstrip("/") if not folder else f"{folder}/{entry}"
            for entry in toctree(pages[page])
        ]
    return set(pages) - seen


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, made as GitHub and MyST make them, and explicit ones."""
    plain = FENCE.sub("", text)
    found = set(re.findall(r"^\(([\w-]+)\)=$", plain, re.MULTILINE))
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*$", plain, re.MULTILINE):
        words = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def dead_links(path: Path, text: str) -> list[str]:
    """Relative links that lead to no file or no heading."""
    found = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists():
            found.append(target)
        elif (
            anchor
            and there.suffix == ".md"
            and anchor not in anchors(there.read_text(encoding="utf-8") if file else text)
        ):
            found.append(target)
    return found


def blocks(path: Path, text: str) -> list[str]:
    """Python code of a script or of all blocks of a page, hidden ones included."""
    if path.suffix == ".py":
        return [text]
    return [block.code for block in page_blocks.find_blocks(text)[0] if block.language == "python"]


def unknown_names(text: str) -> set[str]:
    """Names after `ak.` that the package does not have; `ak.name` in prose counts too."""
    used = re.findall(r"(?<![\w.])ak\.([A-Za-z_]\w*)", text)
    return {x for x in used if x not in ak.__all__ and not hasattr(ak, x)}


def wrong_imports(code: str) -> list[str]:
    """Names imported from the package that its modules do not have."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ase_kinoson":
            module = import_module(str(node.module))
            wrong += [f"{node.module}.{a.name}" for a in node.names if not hasattr(module, a.name)]
    return wrong


# -- the pages ------------------------------------------------------------------------------------------------------


def test_every_page_is_listed():
    pages = {str(p.relative_to(DOCS).with_suffix("")): p.read_text(encoding="utf-8") for p in PAGES}
    assert len(pages) > 10
    assert unlisted(pages) == set(), "pages that no toctree lists; add them to docs/index.md"
    assert unlisted({**pages, "forgotten": "# Forgotten"}) == {"forgotten"}


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=name)
def test_links_lead_somewhere(path):
    assert dead_links(path, path.read_text(encoding="utf-8")) == []


def test_dead_links_are_found():
    links = ["no_such.md", "theory.md#no-such", "theory.md#which-states", "#here", "https://x.org", "#there"]
    text = "# Here\n" + " ".join(f"[some words]({link})" for link in links)
    assert dead_links(DOCS / "index.md", text) == ["no_such.md", "theory.md#no-such", "#there"]
    assert dead_links(DOCS / "index.md", "```\n[a](no_such.md)\n```\n") == []


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_names_exist(path):
    text = path.read_text(encoding="utf-8")
    assert unknown_names(text) == set()
    assert [x for code in blocks(path, text) for x in wrong_imports(code)] == []


def test_unknown_names_are_found():
    assert unknown_names("ak.Alloy and ak.no_such, break.this") == {"no_such"}
    assert wrong_imports("from ase_kinoson.errors import KinosonError, NoSuch") == ["ase_kinoson.errors.NoSuch"]


# -- the blocks of the pages, without running them (make docs runs them) -----------------------------------------------


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=name)
def test_blocks_can_be_run(path):
    text = path.read_text(encoding="utf-8")
    assert page_blocks.page_faults(text) == []
    skipped = [block.line for block in page_blocks.find_blocks(text)[0] if block.skipped]
    allowed = SKIPPED.get(name(path), 0)
    assert len(skipped) <= allowed, f"lines {skipped} are skipped, {allowed} may be: make them run, or list the page"


def test_few_blocks_are_skipped():
    assert set(SKIPPED) <= {name(path) for path in WITH_CODE}
    found = [block for path in (ROOT / "README.md", *PAGES) for block in page_blocks.find_blocks(path.read_text())[0]]
    runnable = [block for block in found if block.language in page_blocks.RUN]
    assert len(runnable) > 50
    assert sum(block.skipped for block in runnable) < 0.25 * len(runnable)


def page(language: str, code: str, before: str = "") -> str:
    return f"# Page\n\n{before}```{language}\n{code}\n```\n\nMore.\n"


GOOD = [
    page("python", "x = 1", '<!--- skip: next "needs a cluster" --->\n'),
    page("python", "x = 1", '<!--- skip: next if(absent("kawin"), reason="needs kawin") --->\n\n'),
    page("python", "x = y", "<!--- invisible-code-block: python\ny = 1\n--->\n"),
    page(
        "bash", "# a comment\nOMP_NUM_THREADS=1 ase-kinoson run a.toml \\\n  --out b && ase db x.db > list  # and more"
    ),
    page("bash", "python -c 'import ase\nprint(ase)' | head -1"),
    page("bash", "make demo", '<!--- skip: next "make runs it" --->\n'),
    page("toml", '[calculator]\nname = "cantor-meam"'),
    page("toml", '[alloy]\nfile = "a.cif"\n[transport]\ntemperatures_K = [900]'),
    page("console", "make demo"),
    page("{note}", "Words."),
    "1. A list\n\n   ```python\n   for i in range(2):\n       print(i)\n   ```\n",
]
BAD = {
    "found a block of ''": page("", "x"),
    "found a block of 'yaml'": page("yaml", "x: 1"),
    "found a block of '{code-block} python'": page("{code-block} python", "x"),
    "no Python": page("python", "x ="),
    "without an end": "```python\nx = 1\n",
    "skip without a reason": page("python", "x", "<!--- skip: next --->\n"),
    "skip without": page("python", "x", '<!--- skip: next if(absent("kawin")) --->\n'),
    "expected skip: next": page("python", "x", '<!--- skip: start "all of it" --->\n'),
    "skips nothing": page("python", "x", '<!--- skip: next "no reason" --->\nWords between.\n'),
    "skips a block that would not run": page("text", "x", '<!--- skip: next "no reason" --->\n'),
    "found the command 'make'": page("bash", "ase info; make demo"),
    "found the command 'sbatch'": page("bash", "cat job.sh | sbatch"),
    "a quotation": page("bash", "python -c 'x"),
    "lookahed": page("toml", "[relaxation]\nlookahed = 1"),
    "found nothing; expected this key": page("toml", "[alloy]\n[transport]\ntemperatures_K = [900]"),
    "Expected ']'": page("toml", "[alloy"),
}


@pytest.mark.parametrize("text", GOOD)
def test_good_blocks_pass(text):
    assert page_blocks.page_faults(text) == []


@pytest.mark.parametrize("fault", BAD)
def test_bad_blocks_are_found(fault):
    faults = page_blocks.page_faults(BAD[fault])
    assert len(faults) == 1 and fault in faults[0], faults


def test_blocks_that_are_skipped():
    skipped = [block.skipped for text in GOOD for block in page_blocks.find_blocks(text)[0]]
    assert sum(skipped) == 2  # the conditions leave it to the machine
    hidden = page_blocks.find_blocks(GOOD[2])[0]
    assert [block.hidden for block in hidden] == [True, False] and hidden[0].code == "y = 1\n"
