"""Vector arithmetic of invariant networks: sums of rows of integers, SiLU, and a mixing layer, kept in registers.

Each is LLVM code with vectors of fixed length, which LLVM fits to the processor (AVX-512, AVX2, NEON …). Numba's own
loops leave sums in memory and have no vector form of exp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils

from ase_kinoson.barriers.incremental import GROUP, LANES

__all__ = ["activate", "add_rows", "borrowed", "common", "mix", "product"]

TOGETHER = 8
"""Rows of a product with a matrix that are held in registers."""

_intrinsic: Any = extending.intrinsic  # its type would be that of the function that writes the code

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)

# 2^r on [-1/2, 1/2], interpolated in Chebyshev points: relative error below 3e-7 in single precision
_EXP2 = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5]).convert(
    kind=np.polynomial.Polynomial
)
_POLYNOMIAL = [float(np.float32(c)) for c in _EXP2.coef]


def _data(context: Any, builder: Any, array: Any, value: Any) -> Any:
    return context.make_array(array)(context, builder, value).data


def _all(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _same(builder: Any, scalar: Any) -> Any:
    """A vector of one number."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * LANES))


def _load(builder: Any, data: Any, index: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, data: Any, index: Any, align: int) -> None:
    builder.store(value, builder.bitcast(builder.gep(data, [index]), value.type.as_pointer()), align=align)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Product a b, plus c; rounded once where the processor can."""
    name = f"llvm.fmuladd.v{LANES}f32"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name)
    return builder.call(function, [a, b, c])


def _silu(builder: Any, x: Any) -> Any:
    """SiLU x / (1 + exp(−x)), relative error below 1e-6: exp as 2^n 2^r with a polynomial for 2^r."""
    t = builder.fmul(x, _all(-1.0 / np.log(2.0)))
    low = builder.fcmp_ordered("<", t, _all(126.0))
    t = builder.select(low, t, _all(126.0))
    high = builder.fcmp_ordered(">", t, _all(-126.0))
    t = builder.select(high, t, _all(-126.0))
    shifter = _all(1.5 * 2.0**23)  # adding it rounds to whole numbers
    moved = builder.fadd(t, shifter)
    r = builder.fsub(t, builder.fsub(moved, shifter))
    power = _all(_POLYNOMIAL[-1])
    for c in _POLYNOMIAL[-2::-1]:
        power = _fused(builder, power, r, _all(c))
    exponent = builder.shl(builder.bitcast(moved, _INTS), ir.Constant(_INTS, [23] * LANES))
    power = builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _VECTOR)
    return builder.fdiv(x, builder.fadd(power, _all(1.0)))


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts: Any = kind
        items = [_without_owner(context, builder, of, builder.extract_value(value, i)) for i, of in enumerate(parts)]
        return context.make_tuple(builder, kind, items)
    return value


@_intrinsic
def borrowed(typing: Any, arrays: Any) -> Any:
    """The same arrays without counting who uses them: counting costs more than a short loop over them.

    Parameters
    ----------
    arrays
        An array, or a named tuple of arrays and of such tuples; the caller keeps it alive.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _without_owner(context, builder, signature.args[0], args[0])

    return arrays(arrays), code


@_intrinsic
def add_rows(
    typing: Any,
    sums: Any,
    at: Any,
    n_ops: Any,
    width: Any,
    rows: Any,
    turned: Any,
    sites: Any,
    codes: Any,
    n_plus: Any,
    n_all: Any,
    anew: Any,
) -> Any:
    """Add rows of integers to the sums of every orientation, and subtract others.

    Parameters
    ----------
    sums : ndarray of int32
        Sums of orientation g from ``at + g * width`` on.
    at, n_ops, width
        ``n_ops`` is a multiple of GROUP, ``width`` of LANES.
    rows : ndarray of int32, one axis
    turned : ndarray of int32
        Where the rows of a site begin in every orientation.
    sites, codes : ndarray of int64
        Row j of orientation g begins at ``turned[sites[j] + g] + codes[j]``.
    n_plus, n_all
        Rows 0 … n_plus − 1 are added, rows n_plus … n_all − 1 subtracted.
    anew
        Sums begin at zero.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source, turned, sites, codes = (
            _data(context, builder, signature.args[i], args[i]) for i in (0, 4, 5, 6, 7)
        )
        at, n_ops, width, n_plus, n_all, anew = (args[i] for i in (1, 2, 3, 8, 9, 10))
        nothing = ir.Constant(_INTS, [0] * LANES)
        zero, lanes = ir.Constant(_LONG, 0), ir.Constant(_LONG, LANES)
        cells = [cgutils.alloca_once(builder, _INTS) for _ in range(2 * GROUP)]

        def block(first: Any, column: Any, count: int) -> None:
            """Some orientations and ``count`` vectors of each."""
            parts = [(u, v) for u in range(GROUP) for v in range(count)]
            shift = [builder.add(column, ir.Constant(_LONG, v * LANES)) for v in range(count)]
            place = {
                (u, v): builder.add(
                    builder.add(at, shift[v]), builder.mul(builder.add(first, ir.Constant(_LONG, u)), width)
                )
                for u, v in parts
            }
            for i, part in enumerate(parts):
                builder.store(builder.select(anew, nothing, _load(builder, to, place[part], _INTS, 4)), cells[i])
            for start, stop, combine in ((zero, n_plus, builder.add), (n_plus, n_all, builder.sub)):
                with cgutils.for_range_slice(builder, start, stop, ir.Constant(_LONG, 1), intp=_LONG) as (j, _):
                    site = builder.add(builder.load(builder.gep(sites, [j])), first)
                    start_code = builder.load(builder.gep(codes, [j]))
                    for u in range(GROUP):
                        if u % 2 == 0:  # two at a time: loads are what limits this loop
                            two = _load(builder, turned, builder.add(site, ir.Constant(_LONG, u)), _LONG, 4)
                            row = builder.zext(builder.trunc(two, _INT), _LONG)
                        else:
                            row = builder.lshr(two, ir.Constant(_LONG, 32))
                        row = builder.add(row, start_code)
                        for v in range(count):
                            cell = cells[u * count + v]
                            found = _load(builder, source, builder.add(row, shift[v]), _INTS, 4)
                            builder.store(combine(builder.load(cell), found), cell)
            for i, part in enumerate(parts):
                _store(builder, builder.load(cells[i]), to, place[part], 4)

        large = ir.Constant(_LONG, 2 * LANES)
        whole = builder.mul(builder.sdiv(width, large), large)
        with cgutils.for_range_slice(builder, zero, n_ops, ir.Constant(_LONG, GROUP), intp=_LONG) as (first, _):
            with cgutils.for_range_slice(builder, zero, whole, large, intp=_LONG) as (column, _):
                block(first, column, 2)
            with cgutils.for_range_slice(builder, whole, width, lanes, intp=_LONG) as (column, _):
                block(first, column, 1)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(
        sums, integer, integer, integer, rows, turned, sites, codes, integer, integer, types.boolean
    ), code


@_intrinsic
def activate(
    typing: Any, sums: Any, at: Any, rows: Any, width: Any, gain: Any, shift: Any, out: Any, total: Any
) -> Any:
    """SiLU of integer sums times ``gain`` plus ``shift``, and its sum over rows.

    Parameters
    ----------
    sums : ndarray of int32
        Rows of ``width`` numbers from ``at`` on.
    at, rows, width
        ``width`` is a multiple of LANES.
    gain, shift : ndarray of float32, shape (width,)
    out : ndarray of float32, shape (rows * width,)
    total : ndarray of float32, shape (width,)
        Overwritten.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [_data(context, builder, signature.args[i], args[i]) for i in (0, 4, 5, 6, 7)]
        source, gains, shifts, target, totals = arrays
        at, rows, width = args[1:4]
        total = cgutils.alloca_once(builder, _VECTOR)
        with cgutils.for_range_slice(builder, ir.Constant(_LONG, 0), width, ir.Constant(_LONG, LANES), intp=_LONG) as (
            column,
            _,
        ):
            g, s = _load(builder, gains, column, _VECTOR, 4), _load(builder, shifts, column, _VECTOR, 4)
            builder.store(_all(0.0), total)
            with cgutils.for_range(builder, rows, intp=_LONG) as loop:
                place = builder.add(builder.mul(loop.index, width), column)
                x = _load(builder, source, builder.add(at, place), _INTS, 4)
                h = _silu(builder, _fused(builder, builder.sitofp(x, _VECTOR), g, s))
                _store(builder, h, target, place, 4)
                builder.store(builder.fadd(builder.load(total), h), total)
            _store(builder, builder.load(total), totals, column, 4)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(sums, integer, integer, integer, gain, shift, out, total), code


@_intrinsic
def mix(typing: Any, h: Any, rows: Any, width: Any, weights: Any, shift: Any, out: Any, total: Any, keep: Any) -> Any:
    """SiLU of rows times a matrix plus ``shift``; added to ``total``, and with ``keep`` to the rows themselves.

    Parameters
    ----------
    h : ndarray of float32, shape (rows * width,)
    rows, width
        ``width`` is a multiple of LANES.
    weights : ndarray of float32, shape (width, width)
        From rows to columns.
    shift, total : ndarray of float32, shape (width,)
    out : ndarray of float32, shape (rows * width,)
        Written with ``keep`` only.
    keep
        Whether a next layer needs the rows.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 4, 5, 6)]
        source, matrix, shifts, target, totals = arrays
        rows, width, keep = args[1], args[2], args[7]
        cells = [cgutils.alloca_once(builder, _VECTOR) for _ in range(TOGETHER)]
        zero, lanes = ir.Constant(_LONG, 0), ir.Constant(_LONG, LANES)

        def block(first: Any, count: int, column: Any) -> None:
            s = _load(builder, shifts, column, _VECTOR, 4)
            places = [builder.mul(builder.add(first, ir.Constant(_LONG, u)), width) for u in range(count)]
            for u in range(count):
                builder.store(s, cells[u])
            with cgutils.for_range(builder, width, intp=_LONG) as loop:
                w = _load(builder, matrix, builder.add(builder.mul(loop.index, width), column), _VECTOR, 4)
                for u in range(count):
                    x = builder.load(builder.gep(source, [builder.add(places[u], loop.index)]))
                    builder.store(_fused(builder, _same(builder, x), w, builder.load(cells[u])), cells[u])
            total = _load(builder, totals, column, _VECTOR, 4)
            for u in range(count):
                new = _silu(builder, builder.load(cells[u]))
                total = builder.fadd(total, new)
                with builder.if_then(keep):
                    place = builder.add(places[u], column)
                    _store(builder, builder.fadd(_load(builder, source, place, _VECTOR, 4), new), target, place, 4)
            _store(builder, total, totals, column, 4)

        large = ir.Constant(_LONG, TOGETHER)
        whole = builder.mul(builder.sdiv(rows, large), large)
        with cgutils.for_range_slice(builder, zero, width, lanes, intp=_LONG) as (column, _):
            with cgutils.for_range_slice(builder, zero, whole, large, intp=_LONG) as (first, _):
                block(first, TOGETHER, column)
            with cgutils.for_range_slice(builder, whole, rows, ir.Constant(_LONG, 1), intp=_LONG) as (first, _):
                block(first, 1, column)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(h, integer, integer, weights, shift, out, total, types.boolean), code


@_intrinsic
def common(typing: Any, total: Any, width: Any, weights: Any, bias: Any, out: Any) -> Any:
    """Write ``bias + total @ weights``, what a mixing layer adds to every row.

    Parameters
    ----------
    total, bias, out : ndarray of float32, shape (width,)
    width
        A multiple of LANES.
    weights : ndarray of float32, shape (width * width,)
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, matrix, biases, target = (_data(context, builder, signature.args[i], args[i]) for i in (0, 2, 3, 4))
        width = args[1]
        parts = [cgutils.alloca_once(builder, _VECTOR) for _ in range(4)]
        zero, lanes, step = (ir.Constant(_LONG, n) for n in (0, LANES, len(parts)))
        with cgutils.for_range_slice(builder, zero, width, lanes, intp=_LONG) as (column, _):
            for u, part in enumerate(parts):
                builder.store(_all(0.0) if u else _load(builder, biases, column, _VECTOR, 4), part)
            with cgutils.for_range_slice(builder, zero, width, step, intp=_LONG) as (first, _):
                for u, part in enumerate(parts):  # apart, so that they do not wait for each other
                    i = builder.add(first, ir.Constant(_LONG, u))
                    w = _load(builder, matrix, builder.add(builder.mul(i, width), column), _VECTOR, 4)
                    x = _same(builder, builder.load(builder.gep(source, [i])))
                    builder.store(_fused(builder, x, w, builder.load(part)), part)
            found = builder.load(parts[0])
            for part in parts[1:]:
                found = builder.fadd(found, builder.load(part))
            _store(builder, found, target, column, 4)
        return context.get_dummy_value()

    return types.void(total, types.int64, weights, bias, out), code


@_intrinsic
def product(typing: Any, one: Any, two: Any, width: Any) -> Any:
    """Scalar product of two vectors of single-precision numbers; ``width`` is a multiple of LANES.

    Parameters
    ----------
    one, two : ndarray of float32, shape (width,)
    width
        Their length.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (_data(context, builder, signature.args[i], args[i]) for i in (0, 1))
        total = cgutils.alloca_once(builder, _VECTOR)
        builder.store(_all(0.0), total)
        zero, lanes = ir.Constant(_LONG, 0), ir.Constant(_LONG, LANES)
        with cgutils.for_range_slice(builder, zero, args[2], lanes, intp=_LONG) as (first, _):
            x, y = (_load(builder, data, first, _VECTOR, 4) for data in (a, b))
            builder.store(_fused(builder, x, y, builder.load(total)), total)
        found = builder.load(total)
        half = LANES // 2
        while half:
            order = [(i + half) % LANES for i in range(LANES)]
            found = builder.fadd(found, builder.shuffle_vector(found, found, ir.Constant(_INTS, order)))
            half //= 2
        return builder.extract_element(found, ir.Constant(_INT, 0))

    return types.float32(one, two, types.int64), code
