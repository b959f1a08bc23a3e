"""Campaigns: resumable, through executors, complete; and the set of barriers they return."""

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from ase_kinoson.barriers.campaign import compute_barriers
from ase_kinoson.barriers.reference import Barriers
from ase_kinoson.barriers.saddle import SaddleSettings
from ase_kinoson.barriers.source import BarrierSource
from ase_kinoson.crystal import Alloy, JumpNetwork, States
from ase_kinoson.errors import BarrierError, StoreError

ASKED = {0: [0, 3, 7], 1: [1, 4]}


@pytest.fixture(scope="module")
def study():
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True, a=3.58), {"Cu": {"Cu": 0.7, "Ni": 0.3}})
    cell = alloy.supercell((2, 2, 2))
    rng = np.random.default_rng(11)
    codes = np.concatenate([[cell.species.index(s)] * n for s, n in cell.counts[0].items()])
    rows = [np.insert(rng.permutation(codes), place, 0) for place in (0, 9)]
    return States.from_occupations(cell, rows), JumpNetwork.from_supercell(cell)


@pytest.fixture(scope="module")
def plain(study):
    """Uninterrupted, serial, without a store."""
    return compute_barriers(*study, EMT, jumps=ASKED)


class Counting(EMT):
    """EMT that counts calls of all its instances and can be interrupted."""

    calls = 0
    interrupt_at = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        type(self).calls += 1
        if type(self).calls == type(self).interrupt_at:
            raise KeyboardInterrupt
        super().calculate(atoms, properties, system_changes)


class Failing(EMT):
    """EMT that fails while one atom is between its sites."""

    def __init__(self, atom, ideal, how):
        super().__init__()
        self.trap = (atom, np.array(ideal), how)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        atom, ideal, how = self.trap
        if np.linalg.norm(self.atoms.positions[atom] - ideal) > 0.8:
            if how == "raise":
                raise RuntimeError("did not converge")
            self.results["energy"] = float("nan")


def same(one, other):
    for name in ("barrier", "reverse_barrier", "energy_initial", "energy_final", "status", "force_calls", "fmax"):
        a, b = getattr(one, name), getattr(other, name)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name


# -- complete -------------------------------------------------------------------------------------------------------


def test_all_jumps_of_a_state(study):
    states, network = study
    found = compute_barriers(states[[0]], network, EMT)
    assert isinstance(found, Barriers) and isinstance(found, BarrierSource)
    assert found.n_barriers == 12 and found.n_rejected == {}
    assert found.valid.all() and (found.barrier > 0.3).all() and (found.barrier < 1.5).all()
    assert found.delta_e == pytest.approx(found.barrier - found.reverse_barrier)
    assert found.delta_e == pytest.approx(found.energy_final - found.energy_initial[:, None])
    assert found.kra == pytest.approx(found.barrier - found.delta_e / 2)
    assert found.fmax.max() <= 0.01 and found.force_calls.mean() <= 30  # checks of the saddles included
    table = found.by_species()
    assert sum(row["n"] for row in table.values()) == 12
    own = found.barrier[found.moving_species == states.supercell.species.index("Ni")]
    assert table["Ni"]["mean"] == pytest.approx(own.mean())
    assert found.settings["calculator"] == "EMT" and found.settings["saddle"]["fmax_saddle"] == 0.01


def test_jumps_not_asked_for_are_told_apart(study, plain):
    assert (plain.status[0, [0, 3, 7]] == "ok").all() and plain.n_barriers == 5
    assert (plain.status == "not-computed").sum() == 19 and plain.n_rejected == {}
    assert plain.reasons[(0, 1)] == "not asked for"
    with pytest.raises(BarrierError, match="jump 12 asked"):
        compute_barriers(*study, EMT, jumps={0: [12]})
    with pytest.raises(BarrierError, match="state 7"):
        compute_barriers(*study, EMT, jumps={7: [0]})


def test_equal_states_are_computed_once(study, plain):
    states, network = study
    Counting.calls, Counting.interrupt_at = 0, None
    twice = compute_barriers(states[[0, 0]], network, Counting, jumps={0: [0], 1: [0]})
    assert Counting.calls == 1 + twice.settings["force_calls_initial"] + twice.force_calls[0, 0]
    assert (twice.barrier[:, 0] == plain.barrier[0, 0]).all()


# -- resume ---------------------------------------------------------------------------------------------------------


def rows(path):
    with ase.db.connect(path) as db:
        return {(r.kind, r.state_key, r.get("jump_index")): (r.id, r.mtime) for r in db.select()}


def test_interrupted_campaign_resumes(study, plain, tmp_path):
    path = tmp_path / "s.db"
    Counting.calls, Counting.interrupt_at = 0, 45
    with pytest.raises(KeyboardInterrupt):
        compute_barriers(*study, Counting, store=path, jumps=ASKED)
    before = rows(path)
    assert 2 <= len(before) < 7  # a state and some jumps
    done = sum(kind == "jump" for kind, *_ in before)
    Counting.calls, Counting.interrupt_at = 0, None
    finished = compute_barriers(*study, Counting, store=path, jumps=ASKED)
    same(finished, plain)
    after = rows(path)
    assert len(after) == 7 and all(after[key] == value for key, value in before.items())
    with ase.db.connect(path) as db:
        known = {before[key][0] for key in before}
        fresh = sum(r.force_calls for r in db.select() if r.id not in known)
    assert Counting.calls == 1 + fresh and done > 0
    Counting.calls = 0
    again = compute_barriers(*study, Counting, store=path, jumps=ASKED, progress=True)
    same(again, plain)
    assert Counting.calls == 0
    more = compute_barriers(*study, Counting, store=path, jumps={0: [0, 1]})
    assert more.barrier[0, 0] == plain.barrier[0, 0] and more.status[0, 1] == "ok"


def test_store_of_another_study_is_refused(study, tmp_path):
    states, network = study
    path = tmp_path / "s.db"
    compute_barriers(states, network, EMT, store=path, jumps={0: [0]})
    with pytest.raises(StoreError, match="'asap_cutoff' False, expected True"):
        compute_barriers(states, network, partial(EMT, asap_cutoff=True), store=path, jumps={0: [0]})
    with pytest.raises(StoreError, match=r"'fmax_saddle' 0\.01, expected 0\.05"):
        settings = SaddleSettings(fmax_saddle=0.05)
        compute_barriers(states, network, EMT, store=path, jumps={0: [0]}, settings=settings)


def test_truncated_store_is_refused(study, tmp_path):
    path = tmp_path / "s.db"
    compute_barriers(*study, EMT, store=path, jumps={0: [0]})
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(StoreError, match="damaged"):
        compute_barriers(*study, EMT, store=path, jumps={0: [0]})


# -- executors ------------------------------------------------------------------------------------------------------


def test_processes_give_the_same_bits(study, plain, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        same(compute_barriers(*study, EMT, executor=executor, jumps=ASKED, store=tmp_path / "p.db"), plain)
        with pytest.raises(BarrierError, match=r"cannot be sent to the executor.*top of a module"):
            compute_barriers(*study, lambda: EMT(), executor=executor, jumps=ASKED)
        assert executor.submit(int, 3).result() == 3  # the executor is the caller's
    assert len(rows(tmp_path / "p.db")) == 7


def test_threads_give_the_same_bits(study, plain):
    with ThreadPoolExecutor(2) as executor:
        same(compute_barriers(*study, EMT, executor=executor, jumps=ASKED), plain)


# -- bad input and bad luck -----------------------------------------------------------------------------------------


def test_unknown_species_stops_before_a_campaign_of_failures(tmp_path):
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True), {"Cu": {"Cu": 0.5, "Fe": 0.5}})
    cell = alloy.supercell((2, 2, 2))
    states = States.from_occupations(cell, np.insert(np.arange(31) % 2 + 1, 0, 0))
    with pytest.raises(BarrierError, match=r"EMT fails .* Cu, Fe \(.*Fe.*\).*knows these species"):
        compute_barriers(states, JumpNetwork.from_supercell(cell), EMT, store=tmp_path / "s.db")


def test_calculator_must_be_a_factory(study):
    with pytest.raises(BarrierError, match=r"calculator instance \(EMT\).*pass the class EMT"):
        compute_barriers(*study, EMT())
    with pytest.raises(BarrierError, match="found 'EMT' as calculator"):
        compute_barriers(*study, "EMT")

    def broken():
        raise RuntimeError("no licence")

    with pytest.raises(BarrierError, match=r"broken raised RuntimeError: no licence.*call it once by hand"):
        compute_barriers(*study, broken)


def test_states_and_jumps_must_share_the_supercell(study):
    states, _ = study
    network = JumpNetwork.from_supercell(states.supercell.alloy.supercell((3, 2, 2)))
    with pytest.raises(BarrierError, match="32 sites and the jumps on another of 48"):
        compute_barriers(states, network, EMT)


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_one_failing_jump_is_recorded_and_the_rest_goes_on(study, plain, tmp_path, how, caplog):
    states, network = study
    site = int(network.targets(states.carriers)[0, 3])
    atom = int((states.occupations[0, :site] > 0).sum())
    factory = partial(Failing, atom, states.supercell.positions[site], how)
    with caplog.at_level(logging.WARNING):
        found = compute_barriers(states, network, factory, jumps={0: [0, 3, 7]}, store=tmp_path / "s.db")
    assert found.status[0, 3] == "calculator-failed" and found.n_rejected == {"calculator-failed": 1}
    assert found.barrier[0, 3] == np.inf == found.reverse_barrier[0, 3]
    assert ("did not converge" if how == "raise" else "NaN") in found.reasons[(0, 3)]
    assert (found.barrier[0, [0, 7]] == plain.barrier[0, [0, 7]]).all()
    assert "1 of 3 jumps have no barrier" in caplog.text
    again = compute_barriers(states, network, factory, jumps={0: [0, 3, 7]}, store=tmp_path / "s.db")
    assert again.reasons == found.reasons
    same(again, found)


def test_state_that_cannot_be_relaxed_rejects_all_its_jumps(study):
    settings = SaddleSettings(max_relax_calls=2)
    found = compute_barriers(*study, EMT, settings=settings, jumps={0: [0, 1]})
    assert found.n_rejected == {"not-converged": 2}
    assert "initial state: largest force" in found.reasons[(0, 1)]


# -- the data set ---------------------------------------------------------------------------------------------------


def filled(states, network, **changes):
    rng = np.random.default_rng(5)
    barrier = rng.uniform(0.5, 1.0, (len(states), network.n_jumps))
    given = {"reverse_barrier": barrier - rng.normal(scale=0.1, size=barrier.shape), **changes}
    return Barriers.from_arrays(states, network, given.pop("barrier", barrier), **given)


def test_lookup_by_occupation(study):
    states, network = study
    found = filled(states, network)
    energies = found.jump_energies(states.occupations[::-1], states.carriers[::-1])
    assert np.array_equal(energies.barrier, found.barrier[::-1])
    assert energies.reverse_barrier == pytest.approx(found.reverse_barrier[::-1])
    other, carrier = network.apply(states.occupations, states.carriers, [0, 0])
    with pytest.raises(BarrierError, match=r"state 1 .* is not among the 2 states.*compute_barriers"):
        found.jump_energies(np.stack([states.occupations[0], other[1]]), [states.carriers[0], carrier[1]])


def test_rejected_jumps_are_closed_in_lookups(study):
    states, network = study
    status = np.full((2, 12), "ok", dtype="U24")
    status[0, 4] = "unstable-end"
    found = filled(states, network, status=status, reasons={(0, 4): "gone"})
    energies = found.jump_energies(states.occupations, states.carriers)
    assert energies.barrier[0, 4] == np.inf == energies.reverse_barrier[0, 4] and energies.delta_e[0, 4] == 0
    assert found.barrier[0, 4] == np.inf == found.reverse_barrier[0, 4]
    assert np.isnan(found.kra[0, 4]) and np.isnan(found.delta_e[0, 4])
    assert found.n_rejected == {"unstable-end": 1} and found.n_barriers == 23


def test_reverse_of_a_rejected_jump_is_rejected(study):
    states, network = study
    after, carrier = network.apply(states.occupations[[0]], states.carriers[[0]], [4])
    pair = States.from_occupations(states.supercell, np.stack([states.occupations[0], after[0]]))
    back = int(network.reverse[0, 4])
    assert network.apply(after, carrier, [back])[1][0] == states.carriers[0]
    status = np.full((2, 12), "ok", dtype="U24")
    status[0, 4] = "unstable-end"

    def closed_both_ways(barriers):
        assert np.isinf(barriers[1, back])

    found = filled(pair, network, status=status)
    closed_both_ways(found.barrier)
    assert found.status[1, back] == "reverse-rejected" and "jump 4 of state 0" in found.reasons[(1, back)]
    assert found.n_barriers == 22
    with pytest.raises(AssertionError):  # the twin without the cross-check
        closed_both_ways(filled(pair, network).barrier)
    parts = [filled(pair[[0]], network, status=status[:1]), filled(pair[[1]], network)]
    assert parts[1].n_barriers == 12
    joined = Barriers.concatenate(parts)
    closed_both_ways(joined.barrier)


def test_a_failed_search_takes_the_path_found_from_the_other_end(study):
    states, network = study
    after, _ = network.apply(states.occupations[[0]], states.carriers[[0]], [4])
    pair = States.from_occupations(states.supercell, np.stack([states.occupations[0], after[0]]))
    back = int(network.reverse[0, 4])
    status = np.full((2, 12), "ok", dtype="U24")
    status[0, 4] = "timed-out"
    own = np.full((2, 12), np.nan)
    own[1, back] = 4e12
    found = filled(pair, network, status=status, reasons={(0, 4): "too slow"}, attempt_frequency=own)
    assert found.attempt_frequency[0, 4] == 4e12
    assert found.n_barriers == 24 and found.reasons == {} and found.settings["taken_from_reverse"] == [[0, 4]]
    assert (
        found.barrier[0, 4] == found.reverse_barrier[1, back] and found.reverse_barrier[0, 4] == found.barrier[1, back]
    )
    assert found.delta_e[0, 4] == -found.delta_e[1, back]
    # broken twin: alone it stays without a barrier, and it does not close the way for anybody
    alone = filled(pair[[0]], network, status=status[:1], reasons={(0, 4): "too slow"})
    assert alone.n_barriers == 11 and alone.n_rejected == {"timed-out": 1}


def test_unsettled_barriers_are_marked_counted_and_the_same_both_ways(study):
    states, network = study
    after, _ = network.apply(states.occupations[[0]], states.carriers[[0]], [4])
    pair = States.from_occupations(states.supercell, np.stack([states.occupations[0], after[0]]))
    back = int(network.reverse[0, 4])
    higher = 0.3  # the saddle that the search from the other end knows lies above this one's by that much

    def symmetric(found):
        assert found.barrier[0, 4] == pytest.approx(found.reverse_barrier[1, back], abs=1e-12)
        assert found.reverse_barrier[0, 4] == pytest.approx(found.barrier[1, back], abs=1e-12)

    def made(own, other, shift):
        plain = filled(pair, network)
        marks = np.full((2, 12), "both-ends", dtype="U12")
        marks[0, 4], marks[1, back] = own, other
        forward, backward = plain.barrier.copy(), plain.reverse_barrier.copy()
        forward[1, back], backward[1, back] = backward[0, 4] + shift, forward[0, 4] + shift
        reasons = {key: "no way on" for key, mark in (((0, 4), own), ((1, back), other)) if mark == "unsettled"}
        status = plain.status
        return forward, Barriers.from_arrays(
            pair, network, forward, reverse_barrier=backward, energy_initial=plain.energy_initial,
            status=status, descents=marks, reasons=reasons,
        )  # fmt: skip

    for own, other, shift, count in (
        ("unsettled", "unsettled", higher, 2),  # the higher saddle known counts for both
        ("unsettled", "unsettled", -higher, 2),
        ("unsettled", "side-basin", higher, 0),  # a settled path counts, whichever is higher
        ("unsettled", "side-basin", -higher, 0),
    ):
        given, found = made(own, other, shift)
        symmetric(found)
        expected = max(0.0, shift) if count else shift
        assert found.barrier[0, 4] == pytest.approx(given[0, 4] + expected, abs=1e-12)
        assert found.n_unsettled == found.unsettled.sum() == count and len(found.reasons) == count
        assert ("2 unsettled" in repr(found)) == (count == 2)
        assert (
            found[[0]].n_unsettled == count // 2
            and Barriers.concatenate([found, found[[1]]]).n_unsettled == 3 * count // 2
        )
    with pytest.raises(AssertionError):  # settled marks on different saddles are taken at their word
        symmetric(made("both-ends", "both-ends", higher)[1])
    assert filled(pair, network).n_unsettled == 0


def test_parts_and_sums(study):
    states, network = study
    status = np.full((2, 12), "ok", dtype="U24")
    status[1, 2] = "wrong-saddle"
    found = filled(states, network, status=status, reasons={(1, 2): "elsewhere"})
    last = found[[1]]
    assert len(last) == 1 and last.reasons == {(0, 2): "elsewhere"}
    assert np.array_equal(last.barrier, found.barrier[1:]) and len(found[:1]) == 1
    assert np.array_equal(found[np.array([False, True])].barrier, last.barrier)
    joined = Barriers.concatenate([last, found[[0]]])
    assert np.array_equal(joined.barrier, found.barrier[::-1]) and joined.reasons == {(0, 2): "elsewhere"}
    assert joined.states.weights.sum() == pytest.approx(1.0)
    assert len(set(joined.states.groups.tolist())) == 2
    assert Barriers.concatenate([last, found]).states.weights == pytest.approx(np.full(3, 1 / 3))  # one for each state
    with pytest.raises(BarrierError, match="at least one"):
        Barriers.concatenate([])


def test_arrays_are_checked(study):
    states, network = study
    barrier = np.full((2, 12), 0.8)
    with pytest.raises(BarrierError, match=r"shape \(2, 11\); expected \(2, 12\)"):
        filled(states, network, barrier=barrier[:, :11])
    broken = barrier.copy()
    broken[1, 3] = np.nan
    with pytest.raises(BarrierError, match=r"barrier\[1, 3\] = nan"):
        filled(states, network, barrier=broken, reverse_barrier=barrier)
    with pytest.raises(BarrierError, match="neither reverse_barrier nor"):
        Barriers.from_arrays(states, network, barrier)
    with pytest.raises(BarrierError, match="same path"):
        Barriers.from_arrays(
            states,
            network,
            barrier,
            reverse_barrier=barrier,
            energy_initial=np.zeros(2),
            energy_final=np.full((2, 12), 0.3),
        )
    made = Barriers.from_arrays(
        states, network, barrier, energy_initial=np.zeros(2), energy_final=np.full((2, 12), 0.3)
    )
    assert made.reverse_barrier == pytest.approx(np.full((2, 12), 0.5))


def test_padded_jumps_do_not_exist():
    alloy = Alloy.from_atoms(bulk("Cu", cubic=True)).with_interstitials("H", [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
    cell = alloy.supercell((2, 2, 2))
    network = JumpNetwork.from_supercell(cell)
    assert not network.exists[alloy.mobile_basis].all()
    occupation = np.where(np.isin(np.arange(cell.n_sites), cell.mobile_sites), 0, cell.species.index("Cu"))
    few = next(s for s in cell.mobile_sites if not network.exists[cell.basis_index[s]].all())
    occupation[few] = cell.species.index("H")
    states = States.from_occupations(cell, occupation)
    found = filled(states, network)
    exists = network.exists[cell.basis_index[few]]
    assert np.array_equal(found.status[0] == "none", ~exists)
    assert np.isinf(found.barrier[0, ~exists]).all() and found.n_barriers == exists.sum()


class Shifted(EMT):
    """EMT of a machine that rounds differently."""

    shift = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += self.shift


def test_two_machines_that_round_differently_share_a_store(study, plain, tmp_path, monkeypatch):
    from ase_kinoson.barriers.campaign import _Campaign

    real, path, busy = _Campaign.keep, tmp_path / "s.db", []

    def keep(self, finished):
        if not busy:  # just before this campaign writes its state, another has written its own
            busy.append(True)
            monkeypatch.setattr(Shifted, "shift", 2e-5)
            compute_barriers(*study, Shifted, store=path, jumps={0: [0]})
            monkeypatch.setattr(Shifted, "shift", 0.0)
        return real(self, finished)

    monkeypatch.setattr(_Campaign, "keep", keep)
    for _ in range(2):
        found = compute_barriers(*study, Shifted, store=path, jumps=ASKED)
        assert found.n_barriers == 5
        assert found.barrier[found.valid] == pytest.approx(plain.barrier[plain.valid], abs=1e-9)
        difference = found.energy_final - found.energy_initial[:, None]
        assert difference[found.valid] == pytest.approx(plain.delta_e[plain.valid], abs=1e-9)
    with ase.db.connect(path) as db:  # the twin: the energies as they stand in the rows do not belong together
        energies = {row.energy_initial for row in db.select(state_key=f"state-{study[0].keys[0]}")}
    assert max(energies) - min(energies) == pytest.approx(2e-5, abs=1e-9)
