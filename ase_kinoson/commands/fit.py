"""``ase-kinoson fit``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ase_kinoson.commands.common import add_study_arguments, clean_errors, open_study, table


class CLICommand:
    """Go as far as the barrier model and print its errors on held-out states.

    Example:

      ase-kinoson fit study.toml --out results

    The model is in results/model.safetensors and results/model.json; BarrierModel.load("results/model") reads
    it.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Add arguments."""
        add_study_arguments(parser)

    @staticmethod
    def run(args: Namespace) -> None:
        """Run the command."""
        with clean_errors(args):
            study = open_study(args)
            model = study.fit(progress=not args.quiet)
            rows = []
            for symbol, entry in model.report.get("held_out", {}).items():
                e, base = entry["barrier"]["model"], entry["barrier"]["baseline"]
                rows.append((symbol, *(f"{1000 * x:.1f}" for x in (e["mae"], e["rmse"], base["rmse"])), str(e["n"])))
            head = (
                "jumping atom",
                "MAE (meV)",
                "rms error (meV)",
                "of the species mean (meV)",
                "held-out barriers",
            )
            print(table(head, rows))
            print(f"written: {study.folder / 'model.safetensors'}, model.json")
