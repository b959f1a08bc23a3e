"""Speed, cost and memory measured on the machine at hand: what ``ase-kinoson bench`` runs."""
