"""One float of a value, found at random at any depth, changed by its last bit: what round trips must not lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def nudged_json(data: Any, rng: np.random.Generator) -> Any:
    """Plain JSON data with another last bit of one float."""
    places = [place for place in _places(data) if not any(str(step).startswith("@") for step in place)]
    assert places, "found no float; expected one to change"
    return _changed(data, places[rng.integers(len(places))])


def nudged(value: Any, rng: np.random.Generator) -> Any:
    """A dataclass of which one array or float, at any depth of dataclasses, has another last bit."""
    places = list(_inner(value))
    assert places, "found no float; expected one to change"
    owner, name = places[rng.integers(len(places))]
    old = getattr(owner, name)
    new = np.nextafter(old, np.inf)
    object.__setattr__(owner, name, new if isinstance(old, np.ndarray) else float(new))
    return value


def nudged_within(value: Any, rng: np.random.Generator) -> Any:
    """The same for containers of arrays, tensors and dataclasses."""
    if is_dataclass(value):
        return nudged(value, rng)
    keys = list(value) if isinstance(value, Mapping) else list(range(len(value)))
    for key in rng.permutation(len(keys)):
        try:
            new = nudged_within(value[keys[key]], rng) if _is_deep(value[keys[key]]) else _next(value[keys[key]])
        except (AssertionError, TypeError, ValueError):
            continue
        inside = dict(value) if isinstance(value, Mapping) else list(value)
        inside[keys[key]] = new
        return type(value)(inside) if isinstance(value, tuple | list) else inside
    raise AssertionError("found no float; expected one to change")


def _is_deep(value: Any) -> bool:
    return is_dataclass(value) or isinstance(value, Mapping | list | tuple)


def _next(value: Any) -> Any:
    """The next larger float or floats."""
    if hasattr(value, "detach"):
        import torch

        return torch.as_tensor(_next(value.detach().numpy()))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isfinite(value).any():
        return np.nextafter(value, np.asarray(np.inf, dtype=value.dtype))
    if isinstance(value, float) and np.isfinite(value):
        return float(np.nextafter(value, np.inf))
    raise ValueError("no float")


def _places(data: Any, here: tuple = ()) -> Any:
    if isinstance(data, float) and np.isfinite(data):
        yield here
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _places(value, (*here, key))


def _changed(data: Any, place: tuple) -> Any:
    if not place:
        return float(np.nextafter(data, np.inf))
    new = dict(data) if isinstance(data, Mapping) else list(data)
    new[place[0]] = _changed(data[place[0]], place[1:])
    return new


def _inner(value: Any) -> Any:
    for field in fields(value):
        found = getattr(value, field.name)
        if isinstance(found, float) and np.isfinite(found):
            yield value, field.name
        elif isinstance(found, np.ndarray) and found.dtype.kind == "f" and np.isfinite(found).any():
            yield value, field.name
        elif is_dataclass(found) and not isinstance(found, type):
            yield from _inner(found)
