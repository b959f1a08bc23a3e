"""The page for own barrier models: its code runs, and the model it teaches passes all checks."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own_model.md"


def test_the_page_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    page = {"__name__": "own_model"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), page)
    printed = capsys.readouterr().out
    assert "D_v" in printed and "FAILED" not in printed
    # the report on the page is the one that the code prints, numbers apart
    shown = re.search(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown is not None

    def words(text):
        return [re.split(r"\s{2,}", line)[:2] for line in text.splitlines() if re.search("passed|not run|FAILED", line)]

    assert words(shown[1]) == words(printed) and len(words(printed)) == len(page["report"].checks)
    # two estimates of one number: a bound and trajectories
    bound, walk = page["result"].vacancy_diffusivity, page["walk"].vacancy_diffusivity
    assert abs(bound.value - walk.value) < 5.0 * (bound.error**2 + walk.error**2) ** 0.5
    from ase_kinoson.testing import check_barrier_model

    class Mistaken(page["CrowdedSaddles"]):
        """Counts the atoms next to the start only: not the same for the jump back."""

        def jump_energies(self, occupations, carriers):
            found = super().jump_energies(occupations, carriers)
            near = occupations[range(len(carriers)), self.network.targets(carriers).T].T
            return type(found)(found.barrier + 0.01 * (near == 1).sum(axis=1)[:, None], found.delta_e)

    model = page["model"]
    mistaken = Mistaken(model.network, model.energy, model.level, model.crowding)
    failed = {c.name for c in check_barrier_model(mistaken, page["jumps"]).failed}
    assert {"reverse jumps", "detailed balance"} <= failed
