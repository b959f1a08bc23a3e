"""Tidy tables of results."""

import numpy as np
import pytest

import ase_kinoson as ak
from ase_kinoson.errors import KinosonError
from ase_kinoson.kinosons.dataframe import to_dataframe

T = 600.0


@pytest.fixture(scope="module")
def results(tiny, pair_model):
    cell, network = tiny
    return [ak.exact_transport(cell, network, pair_model, t, vacancy_fraction=1e-4) for t in (T, 700.0)]


def test_every_coefficient_is_one_row(results):
    table = to_dataframe(results)
    one = results[0]
    # D_v and its tensor, 2 D*, their tensors, 2 f, 3 collective f, and two 2×2 matrices
    assert len(table) == 2 * (1 + 9 + 2 + 18 + 2 + 3 + 4 + 4)
    assert set(table["temperature_K"]) == {T, 700.0} and table["result"].tolist() == sorted(table["result"])
    hot = table[table["temperature_K"] == 700.0]
    for name in ("tracer_diffusivity", "correlation_factor", "collective_correlation_factor"):
        part = hot[hot["quantity"] == name].set_index("species")
        for species, q in getattr(results[1], name).items():
            row = part.loc[species]
            assert (row["value"], row["error"], row["unit"], row["kind"]) == (float(q), 0.0, q.unit, "exact")
    pair = table[(table["result"] == 0) & (table["quantity"] == "onsager_matrix")]
    off = pair[(pair["species"] == "Ag") & (pair["other_species"] == "Cu")]
    assert off["value"].item() == one.onsager_matrix.value[0, 1] and off["unit"].item() == one.onsager_matrix.unit
    tensor = table[(table["result"] == 0) & (table["quantity"] == "tracer_diffusivity_tensor")]
    yy = tensor[(tensor["species"] == "Cu") & (tensor["component"] == "yy")]
    assert yy["value"].item() == one.tracer_diffusivity_tensor["Cu"].value[1, 1]
    assert np.allclose(table["x_Cu"], 0.5) and np.all(table["vacancy_fraction"] == 1e-4)


def test_one_result_and_tables_that_pivot(results):
    one = results[0].to_dataframe()
    assert one.equals(to_dataframe(results[:1]))
    wide = (
        to_dataframe(results)
        .query("quantity == 'tracer_diffusivity'")
        .pivot(index="temperature_K", columns="species", values="value")
    )
    assert wide.loc[700.0, "Ag"] == float(results[1].tracer_diffusivity["Ag"])


def test_bad_input_is_one_sentence(results):
    with pytest.raises(KinosonError, match="found a Quantity among the results"):
        to_dataframe([results[0], results[0].vacancy_diffusivity])
    assert list(to_dataframe([]).columns)[:3] == ["result", "temperature_K", "quantity"]
