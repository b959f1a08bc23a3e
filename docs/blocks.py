"""The code blocks of a page: which there are, which are skipped, and what may stand in them.

Needs nothing but Python and the package, so that `make test` can look at all pages without running them;
`conftest.py` runs them.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
import tomllib
from dataclasses import dataclass

RUN = ("python", "bash", "toml")
"""Languages of blocks that are executed (bash, python) or read as settings of a study (toml)."""

SHOWN = ("text", "console", "json")
"""Languages of blocks that are only shown. Commands that are shown and not run are `console`."""

COMMANDS = ("ase-kinoson", "ase", "python", "cat", "head", "ls", "mkdir")
"""What bash blocks may call. Anything else is skipped with a reason, or stands in a console block."""

FENCE = re.compile(r"^(?P<prefix>[ \t]*(?:(?:>|[-*+]|\d+[.)])[ \t]+)*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
HIDDEN = re.compile(r"^[ \t]*<!--+\s*invisible-code(?:-block)?:\s*(?P<language>\w+)\s*$")
SKIP = re.compile(r"^[ \t]*<!--+\s*skip\b:?\s*(?P<arguments>.*?)\s*--+>\s*$")
DIRECTIVE = re.compile(r"\{(?!code|sourcecode)[\w:-]+\}")
MINIMAL = {"alloy": {"file": "Cu70Ni30.cif"}, "transport": {"temperatures_K": [1000.0]}}


@dataclass(frozen=True)
class Block:
    """A fenced block, or a hidden one in an HTML comment."""

    language: str
    code: str
    line: int
    skip: str | None = None
    hidden: bool = False

    @property
    def skipped(self) -> bool:
        """Whether it never runs; blocks that are skipped under a condition run where they can."""
        return self.skip is not None and not self.skip.startswith("if")


def find_blocks(text: str) -> tuple[list[Block], list[str]]:
    """Return the blocks of a page, and what is wrong with its fences and skips."""
    blocks, wrong = [], []
    lines = text.splitlines()
    skip: tuple[int, str] | None = None
    n = 0
    while n < len(lines):
        line, start = lines[n], n + 1
        n += 1
        if found := SKIP.match(line):
            if skip is not None:
                wrong.append(f"line {skip[0]}: skips nothing")
            action, _, reason = found["arguments"].partition(" ")
            if action != "next":
                wrong.append(f"line {start}: found skip: {action}; expected skip: next")
            elif not _has_reason(reason.strip()):
                wrong.append(f"line {start}: skip without a reason")
            skip = (start, reason.strip())
            continue
        fence, hidden = FENCE.match(line), HIDDEN.match(line)
        if fence or hidden:
            if fence:
                end = re.compile(rf"^[ \t>]*{re.escape(fence['fence'][0])}{{{len(fence['fence'])},}}[ \t]*$")
                language = fence["info"].strip()
            else:
                end, language = re.compile(r".*--+>\s*$"), hidden["language"] if hidden else ""
            begin = n
            while n < len(lines) and not end.match(lines[n]):
                n += 1
            if n == len(lines):
                wrong.append(f"line {start}: a block without an end")
            code = textwrap.dedent("\n".join(lines[begin:n])) + "\n"
            n += 1
            if skip is not None and language not in RUN:
                wrong.append(f"line {skip[0]}: skips a block that would not run")
            blocks.append(Block(language, code, start, None if skip is None else skip[1], bool(hidden)))
            skip = None
        elif skip is not None and line.strip():
            wrong.append(f"line {skip[0]}: skips nothing")
            skip = None
    if skip is not None:
        wrong.append(f"line {skip[0]}: skips nothing")
    return blocks, wrong


def _has_reason(arguments: str) -> bool:
    """Whether it is a sentence in quotes, or `if(condition, reason="...")`."""
    try:
        node = ast.parse(re.sub(r"^if\b", "if_", arguments), mode="eval").body
    except SyntaxError:
        return False
    if isinstance(node, ast.Call):
        given = [k.value for k in node.keywords if k.arg == "reason"]
        node = given[0] if len(node.args) == 1 and given else node
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.strip()) > 3


def page_faults(text: str) -> list[str]:
    """What is wrong with the blocks of a page, as far as it can be told without running them."""
    blocks, wrong = find_blocks(text)
    for block in blocks:
        known = block.language in (*RUN, *SHOWN) or DIRECTIVE.match(block.language)
        if not known:
            wrong.append(f"line {block.line}: found a block of {block.language!r}; expected one of {(*RUN, *SHOWN)}")
        elif block.language == "python":
            try:
                compile(block.code, f"line {block.line}", "exec", dont_inherit=True)
            except SyntaxError as error:
                wrong.append(f"line {block.line}: no Python: {error}")
        elif block.skip is None and block.language == "bash":
            wrong += [f"line {block.line}: {fault}" for fault in shell_faults(block.code)]
        elif block.skip is None and block.language == "toml":
            wrong += [f"line {block.line}: {fault}" for fault in toml_faults(block.code)]
    return wrong


def shell_faults(code: str) -> list[str]:
    """Commands of a bash block that pages cannot run."""
    wrong, logical = [], ""
    for line in code.splitlines():
        logical += line + "\n"
        if line.endswith("\\"):
            continue
        try:
            words = _words(logical)
        except ValueError:  # a quotation goes on
            continue
        logical, first = "", True
        for word in words:
            if word in ("|", "&&", ";", "||", "&"):
                first = True
            elif first and not re.match(r"[A-Za-z_]\w*=", word):
                first = False
                if word not in COMMANDS:
                    wrong.append(f"found the command {word!r}; expected one of {', '.join(COMMANDS)}")
    return [*wrong, *(["a quotation or a line without an end"] if logical else [])]


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def toml_faults(code: str) -> list[str]:
    """What the package's own reader says of a study file, or of some of its sections in a small study."""
    from ase_kinoson.errors import StudyError
    from ase_kinoson.settings import parse_settings

    try:
        data = tomllib.loads(code)
        if not set(MINIMAL) <= set(data):
            data = {key: {**MINIMAL.get(key, {}), **value} if isinstance(value, dict) else value
                    for key, value in {**MINIMAL, **data}.items()}  # fmt: skip
        parse_settings(data, name="the study")
    except (tomllib.TOMLDecodeError, StudyError) as error:
        return [str(error)]
    return []
