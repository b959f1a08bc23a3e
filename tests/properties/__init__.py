"""Properties that hold for every crystal, state and rate: hypothesis looks for one that breaks them."""
