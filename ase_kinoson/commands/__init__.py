"""One module per command of ``ase-kinoson``, each with a ``CLICommand`` as ASE's command line wants it."""
