"""Negative controls: what is physically wrong is planted in the package, and tests that assert physics must fail."""
