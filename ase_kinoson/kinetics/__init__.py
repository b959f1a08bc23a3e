"""Rates on the lattice: lattice gases, sampling of states, rates from barriers."""
