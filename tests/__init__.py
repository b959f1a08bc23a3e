"""A package, because others install one called tests too."""
