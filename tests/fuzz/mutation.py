"""Files made worse: bytes, numbers, lines and encodings of good ones, by a seeded generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["HUGE", "NUMBERS", "TOKENS", "mutate", "mutate_bytes", "mutate_text"]

NUMBERS = tuple(
    word.encode()
    for word in """0 -0 -1 1 2 7 1e-300 1e300 -1e300 1e400 nan -nan inf -inf NaN Infinity 999999999999999999999999
    2147483648 4294967296 9223372036854775807 9223372036854775808 -9223372036854775809 18446744073709551616
    1000000000000 1000000000 10000 0x41 0o17 1_000 1. .5 +5 1e 1e+ 5e-324 0.1e-9 1/3 12(3) 00012 - + . true null None
    1,5 ١٢ ½""".split()
)
"""What a number may turn into."""

TOKENS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\x1b[31m",
    b"\x7f",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"\xc3\x28",
    "é".encode(),
    "\u202e".encode(),
    b'"',
    b"'",
    b'"""',
    b"#",
    b"{",
    b"[",
    b"%s%s%n",
    b"{0.__class__}",
    b"$(touch written)",
    b"`touch written`",
    b"__import__('os').mkdir('written')",
    b"!!python/object/apply:os.mkdir ['written']",
    b"cos\nmkdir\n(S'written'\ntR.",
    b"../../../../etc/passwd",
    b"/dev/zero",
    b"file:///etc/passwd",
    b"http://127.0.0.1:9/x",
    b"A" * 5000,
)
"""What may be put in anywhere."""

HUGE = tuple(str(n).encode() for n in (10**6, 10**9, 10**12, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30, -(10**9)))
"""Counts that must be refused before memory is taken."""

_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = (), tokens: Sequence[bytes] = TOKENS) -> bytes:
    """Text or binary file with one to a few changes; ``others`` are good files that pieces are taken from."""
    text = b"\x00" not in data[:1000] and rng.random() < 0.8
    return (mutate_text if text else mutate_bytes)(data, rng, others, tokens)


def mutate_bytes(
    data: bytes, rng: random.Random, others: Sequence[bytes] = (), tokens: Sequence[bytes] = TOKENS
) -> bytes:
    """Changes that know nothing of the format, but of counts in it (little- and big-endian)."""
    return _apply(_BYTES, data, rng, others, tokens)


def mutate_text(
    data: bytes, rng: random.Random, others: Sequence[bytes] = (), tokens: Sequence[bytes] = TOKENS
) -> bytes:
    """Changes of numbers, words, lines and encodings, and now and then of bytes."""
    return _apply(_BYTES if rng.random() < 0.15 else _TEXT, data, rng, others, tokens)


Change = Callable[[bytes, random.Random, Sequence[bytes], Sequence[bytes]], bytes]


def _apply(
    changes: Sequence[Change], data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]
) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        data = rng.choice(changes)(data, rng, others, tokens)
    return data


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    a = rng.randrange(len(data) + 1)
    return a, min(len(data), a + rng.choice((1, 1, 2, 4, 8, 32, 256, 4096)))


# -- bytes ------------------------------------------------------------------------------------------------------------


def _cut(data, rng, others, tokens):
    return data[: rng.randrange(len(data) + 1)]


def _behead(data, rng, others, tokens):
    return data[rng.randrange(len(data) + 1) :]


def _flip(data, rng, others, tokens):
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _drop(data, rng, others, tokens):
    a, b = _span(data, rng)
    return data[:a] + data[b:]


def _again(data, rng, others, tokens):
    a, b = _span(data, rng)
    return data[:b] + data[a:b] * rng.choice((1, 2, 50)) + data[b:]


def _blank(data, rng, others, tokens):
    a, b = _span(data, rng)
    return data[:a] + rng.choice((b"\x00", b"\xff", b" ")) * (b - a) + data[b:]


def _swap(data, rng, others, tokens):
    (a, b), (c, d) = sorted((_span(data, rng), _span(data, rng)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _splice(data, rng, others, tokens):
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(data, rng, others, tokens):
    a = rng.randrange(len(data) + 1)
    return data[:a] + rng.choice(tokens) + data[a:]


def _count(data, rng, others, tokens):
    width = rng.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    a = rng.choice((rng.randrange(len(data) - width + 1), rng.randrange(min(64, len(data) - width + 1))))
    value = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 10**9, 10**12))
    return data[:a] + (value % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big"))) + data[a + width :]


def _append(data, rng, others, tokens):
    return data + rng.choice((b"\n", b"\x00" * 100, rng.randbytes(64), rng.choice(tokens), data))


_BYTES: tuple[Change, ...] = (
    *(_cut, _behead, _flip, _flip, _drop, _again, _blank, _swap, _splice, _insert, _count, _count, _append),
)


# -- text -------------------------------------------------------------------------------------------------------------


def _other_match(pattern: re.Pattern[bytes], data: bytes, rng: random.Random, new: Callable[[bytes], bytes]) -> bytes:
    found = list(pattern.finditer(data[:200000]))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + new(one.group()) + data[one.end() :]


def _number(data, rng, others, tokens):
    return _other_match(_NUMBER, data, rng, lambda old: rng.choice((*NUMBERS, *HUGE, b"-" + old, old * 9, old + b"x")))


def _word(data, rng, others, tokens):
    words = _WORD.findall(rng.choice(others or [data]))[:2000] or [b"x"]
    return _other_match(_WORD, data, rng, lambda old: rng.choice((rng.choice(words), old.upper(), old[:-1], b"")))


def _lines(data, rng, others, tokens):
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    what, i = rng.randrange(5), rng.randrange(len(lines))
    if what == 0:
        del lines[i]
    elif what == 1:
        lines[i:i] = [lines[i]] * rng.choice((1, 3, 200))
    elif what == 2:
        rng.shuffle(lines)
    elif what == 3:
        lines.insert(i, rng.choice(rng.choice(others or [data]).splitlines(keepends=True) or [b"\n"]))
    else:
        lines[i] = lines[i].rstrip() + b" " + rng.choice(tokens) + b"\n"
    return b"".join(lines)


def _encoding(data, rng, others, tokens):
    text = data.decode("utf-8", "replace")
    what = rng.randrange(8)
    if what < 5:
        return text.encode(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")[what], "surrogatepass")
    if what == 5:
        return data.replace(b"\n", b"\r\n")
    if what == 6:
        return data.replace(b"\n", b"\r")
    return data.replace(b" ", "\u00a0".encode()) if rng.random() < 0.5 else data.replace(b"e", "\u0435".encode())


def _whitespace(data, rng, others, tokens):
    return rng.choice(
        (
            data.replace(b"\n", b""),
            data.replace(b" ", b""),
            data.replace(b"\n", b"\n\n"),
            data.replace(b" ", b"\t"),
            b"\n" * 1000 + data,
            data.rstrip(),
        )
    )


_TEXT: tuple[Change, ...] = (
    *(_number, _number, _number, _number, _word, _word, _word, _lines, _lines, _lines, _insert, _insert),
    *(_encoding, _whitespace, _cut, _drop, _splice),
)
