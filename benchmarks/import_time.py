"""How long it takes until something happens: imports and help texts, in processor time of a fresh Python.

    python benchmarks/import_time.py [--repeats 5]

Printed is the least of several runs, s, and what is loaded. The first run after an installation compiles the modules
and takes longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

CASES = {
    "python": "pass",
    "import ase_kinoson": "import ase_kinoson",
    "ase-kinoson --help": "from ase_kinoson.cli import main; main(['--help'])",
    "ase-kinoson completion bash": "from ase_kinoson.cli import main; main(['completion', 'bash'])",
    "import ase.io": "import ase.io",
    "ak.load_barriers": "import ase_kinoson as ak; ak.load_barriers",
    "ak.transport": "import ase_kinoson as ak; ak.transport",
    "every public name": "import ase_kinoson as ak; [getattr(ak, name) for name in ak.__all__]",
}
HEAVY = ("numpy", "scipy", "ase", "torch", "pymatgen", "matplotlib", "pandas")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, code in CASES.items():
        code += f"; import sys; print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
        times = []
        for _ in range(options.repeats):
            before = os.times()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        print(f"{name:30} {min(times):6.2f} s   {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '-'}")


if __name__ == "__main__":
    main()
