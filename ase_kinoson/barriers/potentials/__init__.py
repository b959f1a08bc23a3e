"""Real energy models by name: `potential` and what it makes."""

from ase_kinoson.barriers.potentials.recipes import RECIPES, Potential, Recipe, is_potential, potential

__all__ = ["RECIPES", "Potential", "Recipe", "is_potential", "potential"]
