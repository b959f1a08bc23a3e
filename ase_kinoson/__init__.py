"""Kinosons: diffusion in chemically disordered crystals from single jumps."""

__version__ = "0.1.0"
