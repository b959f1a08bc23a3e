"""Faults that are injected into campaigns and studies, and what is left after each."""
