"""Defects of coefficients and their errors; their controls are those of the module ``kinetics``."""

from __future__ import annotations

from tests.controls.planting import Defect, source

DEFECTS: dict[str, Defect] = {
    "images of the tracer without d": source(
        "factor d forgotten", "kinosons.finite_size:finite_size_corrected", "/ (d * counts[a])", "/ counts[a]"
    ),
    "images of the tracer of the wrong sign": source(
        "cells made smaller",
        "kinosons.finite_size:finite_size_corrected",
        "tracer[:, a] -= pull",
        "tracer[:, a] += pull",
    ),
    "drift of the tracer's images left out": source(
        "Λ*² for (Λ* − Λ_av)²",
        "kinosons.finite_size:finite_size_corrected",
        "in_plane + collective[:, a].sum(axis=1)",
        "in_plane",
    ),
    "site of the vacancy left out": source(
        "atoms per site of the small cell",
        "kinosons.finite_size:finite_size_corrected",
        "own.composition.fractions / own.composition.fractions.sum()",
        "own.composition.fractions",
    ),
    "corrected bounds stay bounds": source(
        "kind kept",
        "kinosons.finite_size:finite_size_corrected",
        "ESTIMATE if own.kind in (BOUND, EXACT) else own.kind",
        "result.vacancy_diffusivity.kind",
    ),
    "sizes of cells fitted without their errors": source(
        "all cells weigh alike",
        "kinosons.finite_size:_line",
        "w = np.where(known, 1.0 / np.where(known, sigma, 1.0) ** 2, 1.0)",
        "w = np.ones_like(sigma)",
    ),
    "sizes of cells fitted against N": source(
        "c₀ + c₁N",
        "kinosons.finite_size:extrapolate",
        "1.0 / np.array(sizes, dtype=float)",
        "np.array(sizes, dtype=float)",
    ),
    "error of c_v left out": source(
        "D as sure as Λ", "kinosons.coefficients:Averages.quantity", "relative_error > 0", "False"
    ),
    "full chemical potentials": source(
        "k_BT ln x counted in",
        "kinosons.vacancy_averages:VacancyAverages.fractions",
        "+ self.mu)",
        "+ self.mu + self.kT * np.log(self.x))",
    ),
    "identities changed the other way round": source(
        "μ_a − μ_b for μ_b − μ_a",
        "kinosons.vacancy_averages:VacancyAverages.mu",
        "0.5 * (step - np.swapaxes(step, 1, 2))",
        "0.5 * (np.swapaxes(step, 1, 2) - step)",
    ),
    "sites averaged by their energies": source(
        "exp(−⟨G⟩/k_BT)",
        "kinosons.vacancy_averages:VacancyAverages._log_mean",
        "low - self.kT * np.log(self._mean(which, arrangement, np.exp(-(energies - low) / self.kT)))",
        "self._mean(which, arrangement, energies)",
    ),
    "formation entropy left out": source(
        "c_v of energies alone",
        "kinosons.vacancy_formation:VacancyFormation._with_entropy",
        "np.exp(self.entropy_kB)",
        "1.0",
    ),
    "free energy of the drawing model": source(
        "not corrected by the difference of the energies",
        "kinetics.vacancy_samples:sample",
        " + (energies - own) / cell.n_sites",
        "",
    ),
    "integral of the first energy": source(
        "steps of β without their ends",
        "kinetics.perfect_crystal:PerfectChains.cool",
        "0.5 * h * (self._mean + mean) - h * h / 12 * (self._variance - variance)",
        "h * self._mean",
    ),
    "plain trapezoids of β": source(
        "slopes of the energy left out",
        "kinetics.perfect_crystal:PerfectChains.cool",
        " - h * h / 12 * (self._variance - variance)",
        "",
    ),
    "stores return the energies of other states": source(
        "known results in another order",
        "kinetics.relaxed_energies:RelaxedEnergies._results",
        "((key, self._known[key]) for key in new if key in self._known)",
        "zip([k for k in new if k in self._known], [self._known[k] for k in new if k in self._known][::-1])",
    ),
    "failed searches are no loss": source(
        "rates of zero taken for rates", "kinosons.verdict:judge", "if lost > 0:", "if False:"
    ),
    "states of other energies are no matter": source(
        "weights of another model taken for those of the barriers",
        "kinosons.verdict:judge",
        "if gap > 1e-6:",
        "if False:",
    ),
    "walkers of other energies are no matter": source(
        "starts of another model taken for equilibrium",
        "kinosons.trajectories:_ensemble",
        "if gap > 1e-6:",
        "if False:",
    ),
    "groups counted by size": source(
        "effective number of groups without weights",
        "kinosons.verdict:heavy_share",
        "float(near_one.sum() ** 2 / np.square(near_one).sum())",
        "float(len(parts))",
    ),
    "scatter of few groups taken for normal": source(
        "no Student's t",
        "kinetics.resampling:standard_error",
        "deviation * stdtrit(1.0 / excess, ONE_SIGMA)",
        "deviation",
    ),
    "as many groups drawn as there are": source("n for n − 2", "kinetics.resampling:draw_groups", "max(n - 2, 1)", "n"),
    "groups without weight are drawn": source(
        "empty groups make errors", "kinosons.statistics:_counts", "heavy = weights > 0", "heavy = weights >= 0"
    ),
    "ratio estimate without its ratio": source(
        "value of the model",
        "kinosons.correction:_ratio",
        "pairs = scale[:, :, None] * scale[:, None, :]",
        "pairs = np.ones_like(bottom)",
    ),
    "model over reference": source(
        "ratio turned about", "kinosons.correction:_ratio", "[own / theirs,", "[theirs / own,"
    ),
    "model evaluated with weights of the reference": source(
        "not as its states were drawn",
        "kinosons.correction:_on_states",
        "drawn = states if before is None else states.with_weights(before)",
        "drawn = states",
    ),
    "ratio estimate on jumps of the model": source(
        "bare jumps without their ratio",
        "kinosons.correction:_ratio",
        "bare = (ratio[:, :, None] * ratio[:, None, :])[..., None, None] * ladder.bare[:n_rows]",
        "bare = ladder.bare[:n_rows]",
    ),
    "drift is no matter": source(
        "states that drift make bounds",
        "kinosons.verdict:judge",
        "if drift is not None and not drift.consistent:",
        "if False:",
    ),
    "states of a group taken for groups": source(
        "groups not joined",
        "kinosons.verdict:heavy_share",
        "np.unique(groups, return_inverse=True)[1]",
        "np.arange(len(groups))",
    ),
    "mean time taken for certain": source(
        "resamples without those of the time",
        "kinosons.slopes:LagSlopes.averages",
        "half = 0.5 / self.time",
        "half = 0.5 / self.time[0] * np.ones_like(self.time)",
    ),
    "potentials of frozen atoms by Boltzmann factors": source(
        "atoms at random are weighted",
        "kinosons.vacancy_averages:VacancyAverages.mu",
        "(self._log_mean if equilibrium else self._mean)",
        "self._log_mean",
    ),
    "sites weigh as they were drawn": source(
        "species not in the proportions of the alloy",
        "kinosons.vacancy_averages:VacancyAverages.effective",
        "(self.x / count)[self.removed] *",
        "1.0 *",
    ),
    "site preference turned about": source(
        "c_v over that of a species",
        "kinosons.vacancy_formation:VacancyFormation.site_preference",
        "found.fractions[:, a] / found.fraction",
        "found.fraction / found.fractions[:, a]",
    ),
    "error of c_v for that of its logarithm": source(
        "not relative",
        "kinosons.vacancy_formation:VacancyFormation.effective_energy",
        "kT * float(c.error) / float(c)",
        "kT * float(c.error)",
    ),
    "neighbours drawn alike": source(
        "not by their rates",
        "kinetics.neighbors:draw_neighbors",
        "np.cumsum(p, axis=1)",
        "np.cumsum((p > 0) / (p > 0).sum(axis=1, keepdims=True), axis=1)",
    ),
    "states of energies taken for those of a gas": source(
        "all states of a gas thought alike", "kinosons.correction:_of_model", "flat and not other", "flat"
    ),
}
