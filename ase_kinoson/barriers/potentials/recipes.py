"""Real energy models by name: one line in a study file, one command to install.

A :class:`Potential` is a calculator *factory*: small, picklable, called in the process that computes. What a package
asks for beyond its documentation (a library to load first, another cutoff, files hidden in a model) is done here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from ase.calculators.calculator import CalculatorSetupError

from ase_kinoson.barriers.potentials import kim_files, lammps
from ase_kinoson.errors import BarrierError

__all__ = ["RECIPES", "Potential", "Recipe", "is_potential", "potential"]

EMT_SPECIES = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
LAMMPS = lammps.INSTALL
KIM_MODELS = kim_files.INSTALL
KIM = f"{KIM_MODELS}; pip install kimpy"


@dataclass(frozen=True)
class Recipe:
    """How to make one calculator.

    Attributes
    ----------
    name
        What a study file says.
    about
        Reference and remarks, for people.
    species : tuple of str
        What it covers; empty: nearly every element, or what its files say.
    install
        Command that brings what it needs; empty if ASE is enough.
    needs : tuple of str
        Modules that must be importable; ``"kim:ID"`` is an installed KIM model, ``"file:NAME"`` a potential file.
    make : callable
        Keyword options → ASE calculator.
    """

    name: str
    about: str
    species: tuple[str, ...]
    install: str
    needs: tuple[str, ...]
    make: Callable[..., Any]

    def missing(self) -> str:
        """What keeps this recipe from running here, in words; empty if nothing does."""
        for need in self.needs:
            kind, _, name = need.partition(":")
            try:
                if kind == "kim":
                    kim_files.find_model(name)
                elif kind == "file":
                    lammps.find_potential(name)
                elif kind == "lammps":
                    lammps.lammps_module()
                elif find_spec(need) is None:
                    return f"found no package {need}"
            except CalculatorSetupError as error:
                return str(error).partition("; expected")[0]
        return ""

    def version(self) -> str:
        """Version of the package behind it; empty if it has none."""
        package = self.needs[0].partition(":")[0] if self.needs else "ase"
        try:
            return metadata.version("kimpy" if package == "kim" else package)
        except metadata.PackageNotFoundError:
            return ""


@dataclass(frozen=True)
class Potential:
    """A calculator factory that can be sent to another process.

    Attributes
    ----------
    name
        See :func:`potential`.
    options : mapping
        Keyword arguments of the recipe.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe of this name.

        Raises
        ------
        BarrierError
            If there is no recipe of this name.
        """
        return _recipe(self.name)

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols that it covers; empty: nearly all, or unknown before its files are read."""
        return self.recipe.species

    def missing(self) -> str:
        """What keeps it from running here, and the command that mends it; empty if nothing does."""
        found = self.recipe.missing()
        return f"{found}; {self.recipe.install}" if found else ""

    def __call__(self) -> Any:
        """Make a calculator.

        Raises
        ------
        CalculatorSetupError
            If something is not installed, with the command that installs it.
        """
        recipe = self.recipe
        missing = self.missing()
        if missing:
            raise CalculatorSetupError(f"the potential {self.name!r} does not run here: {missing}")
        try:
            calculator = recipe.make(**self.options)
        except ImportError as error:
            raise CalculatorSetupError(
                f"the potential {self.name!r} does not run here: {error}; install it again: {recipe.install}"
            ) from error
        except TypeError as error:
            raise CalculatorSetupError(
                f"the potential {self.name!r} refuses the options {dict(self.options)} ({error}); correct them"
            ) from error
        if not getattr(calculator, "parameters", None):
            # several packages tell nothing, and two of their models could not be told apart in a store
            calculator.parameters = {"potential": self.name, **self.options}
        return calculator


def potential(name: str, **options: Any) -> Potential:
    """Real energy model by name, as a calculator factory.

    Parameters
    ----------
    name
        A name of ``RECIPES`` such as ``"cantor-meam"``; ``"kim:ID"`` for any KIM model through kimpy;
        ``"lammps:kim:ID"`` for the parameter files of a MEAM or SNAP model of KIM in LAMMPS, which is many times
        faster; ``"lammps:STYLE:FILE[:FILE][:LABELS]"`` for files of LAMMPS' own potentials folder or yours, such as
        ``"lammps:eam/alloy:CuNi.eam.alloy"`` or ``"lammps:meam:library.meam:AlSiMgCuFe.meam:AlS,SiS,MgS,CuS,FeS"``;
        ``"lammps"`` with the options ``species`` and ``commands`` for everything else.
    **options
        Keyword arguments of the calculator.

    Returns
    -------
    Potential
        Call it for a new ASE calculator; give it to :func:`~ase_kinoson.barriers.campaign.compute_barriers` as it is.

    Raises
    ------
    BarrierError
        If there is no such recipe. Whether its packages are installed shows when it is called.
    """
    _recipe(name)
    return Potential(name, options)


def is_potential(name: str) -> bool:
    """Whether `potential` knows a name."""
    return name in RECIPES or name.startswith(("kim:", "lammps:"))


def _recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    kind, _, rest = name.partition(":")
    if kind == "kim" and rest:
        return Recipe(name, "KIM model through kimpy", (), KIM, ("kimpy", f"kim:{rest}"), _Kim(rest))
    if kind == "lammps" and rest.startswith("kim:") and rest[4:]:
        return _lammps_kim(name, "KIM parameters in LAMMPS", (), rest[4:])
    if kind == "lammps" and len(parts := rest.split(":")) >= 2 and all(parts):
        return _lammps_files(name, "files of LAMMPS", parts[0], parts[1:])
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "see ase-kinoson info"
    raise BarrierError(
        f"found no potential {name!r}; expected one of {', '.join(RECIPES)}, 'kim:ID', 'lammps:kim:ID' or "
        f"'lammps:STYLE:FILES'; {hint}"
    )


# -- makers: module-level, so that they can be pickled by name ---------------------------------------------------------


def _emt(**options: Any) -> Any:
    from ase.calculators.emt import EMT

    return EMT(**options)


def _asap3_emt(**options: Any) -> Any:
    import asap3

    return asap3.EMT(**options)


def _chgnet(*, model_name: str = "0.3.0", use_device: str = "cpu", **options: Any) -> Any:
    from chgnet.model import CHGNet
    from chgnet.model.dynamics import CHGNetCalculator

    model = CHGNet.load(model_name=model_name, use_device=use_device, verbose=False)
    return CHGNetCalculator(model, use_device=use_device, **options)


@dataclass(frozen=True)
class _SevenNet:
    model: str
    modal: str | None = None

    def __call__(self, **options: Any) -> Any:
        from sevenn.calculator import SevenNetCalculator

        given = {"model": self.model, "device": "cpu", **({"modal": self.modal} if self.modal else {}), **options}
        return SevenNetCalculator(**given)


@dataclass(frozen=True)
class _Kim:
    model: str

    def __call__(self, **options: Any) -> Any:
        from ase.calculators import kim

        return kim.KIM(self.model, **options)


@dataclass(frozen=True)
class _Lammps:
    """LAMMPS with files; species and commands follow from the files when a calculator is made."""

    style: str
    files: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def __call__(self, **options: Any) -> lammps.LammpsCalculator:
        labels = self.labels or _labels_of(self.style, lammps.find_potential(self.files[0]).read_text(errors="replace"))
        return lammps.LammpsCalculator(**{**_commands(self.style, self.files, labels), **options})


@dataclass(frozen=True)
class _LammpsKim:
    """LAMMPS with the parameter files of a KIM model."""

    model: str

    def __call__(self, **options: Any) -> lammps.LammpsCalculator:
        model = kim_files.find_model(self.model)
        files = dict(model.files)
        driver = model.driver.partition("__")[0]
        if driver == "MEAM_LAMMPS":
            # elements in the order of the second file's indices, then library and parameters
            elements, library, *rest = files
            labels = _words(files[elements].decode())
            commands = _commands("meam", (library, *rest[:1]), labels)
        elif driver == "SNAP":
            coefficients = next((n for n in files if n.endswith("snapcoeff")), "")
            parameters = next((n for n in files if n.endswith("snapparam")), "")
            if not (coefficients and parameters and len(files) == 2):
                raise CalculatorSetupError(
                    f"the KIM model {self.model} holds {', '.join(files)}; expected one snapcoeff and one snapparam "
                    f"file; use 'kim:{self.model}'"
                )
            commands = _commands("snap", (coefficients, parameters), _labels_of("snap", files[coefficients].decode()))
        else:
            raise CalculatorSetupError(
                f"the KIM model {self.model} has the driver {model.driver or 'none'}; expected MEAM_LAMMPS or SNAP, "
                f"whose files LAMMPS reads; use 'kim:{self.model}'"
            )
        return lammps.LammpsCalculator(**{**commands, "kim_model": self.model, **options})


def _commands(style: str, files: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Species and commands for a pair style and its files; labels name the elements inside the files."""
    every = " ".join(labels)
    middle = f"{files[0]} {every} {files[1] if len(files) > 1 else 'NULL'}" if style == "meam" else " ".join(files)
    return {
        "species": [_symbol(label) for label in labels],
        "commands": [f"pair_style {style}", f"pair_coeff * * {middle} {every}"],
    }


def _labels_of(style: str, text: str) -> tuple[str, ...]:
    """Elements that the first file of a pair style describes, in its order."""
    lines = text.splitlines()
    if style in ("eam/alloy", "eam/fs", "eam/cd", "eam/he"):
        return tuple(lines[3].split()[1:]) if len(lines) > 3 else ()
    if style == "meam":
        return tuple(re.findall(r"^\s*'([^']+)'", text, flags=re.MULTILINE))
    if style == "snap":
        rows = [words for line in lines if len(words := line.partition("#")[0].split()) == 3]
        return tuple(words[0] for words in rows if words[0][0].isalpha())
    raise CalculatorSetupError(
        f"cannot read the elements from files of pair style {style!r}; expected eam/alloy, eam/fs, eam/cd, meam or "
        "snap; append them, as in 'lammps:STYLE:FILE:Cu,Ni'"
    )


def _symbol(label: str) -> str:
    """Chemical symbol of a label such as ``AlS``."""
    from ase.data import chemical_symbols

    for length in (2, 1):
        if label[:length] in chemical_symbols[1:]:
            return label[:length]
    raise CalculatorSetupError(
        f"found the label {label!r}; expected one that begins with a chemical symbol; correct it"
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(w for line in text.splitlines() for w in line.partition("#")[0].split())


# -- the recipes -----------------------------------------------------------------------------------------------------


def _lammps_files(name: str, about: str, style: str, parts: Sequence[str], species: tuple[str, ...] = ()) -> Recipe:
    labels = tuple(parts[-1].split(",")) if len(parts) > 1 and "." not in parts[-1] else ()
    files = tuple(parts[:-1] if labels else parts)
    needs = ("lammps", *(f"file:{f}" for f in files))
    return Recipe(name, about, species, LAMMPS, needs, _Lammps(style, files, labels))


def _lammps_kim(name: str, about: str, species: tuple[str, ...], model: str) -> Recipe:
    return Recipe(name, about, species, f"{LAMMPS}; {KIM_MODELS}", ("lammps", f"kim:{model}"), _LammpsKim(model))


def _kim(name: str, about: str, species: tuple[str, ...], model: str) -> Recipe:
    return Recipe(name, about, species, KIM, ("kimpy", f"kim:{model}"), _Kim(model))


def _recipes() -> Iterator[Recipe]:
    yield Recipe("emt", "effective medium theory of ASE", EMT_SPECIES, "", (), _emt)
    yield Recipe(
        "asap3-emt",
        "compiled; equals emt with asap_cutoff = true, not the default",
        EMT_SPECIES,
        "pip install asap3",
        ("asap3",),
        _asap3_emt,
    )
    yield Recipe(
        "lammps", "any LAMMPS potential: options species, commands", (), LAMMPS, ("lammps",), lammps.LammpsCalculator
    )
    meam = "MEAM of Choi et al., npj Comput. Mater. 4, 1 (2018)"
    cantor = "MEAM_LAMMPS_ChoiJoSohn_2018_CoNiCrFeMn__MO_115454747503_000"
    yield _lammps_kim("cantor-meam", meam, ("Co", "Ni", "Cr", "Fe", "Mn"), cantor)
    yield _lammps_files(
        "mo-co-ni-v-fe-al-cr-meam",
        "MEAM of Wang et al., npj Comput. Mater. 9, 60 (2023)",
        "meam",
        ("library_2nn.meam", "MoCoNiVFeAlCr_2nn.meam"),
        ("Mo", "Co", "Ni", "V", "Fe", "Al", "Cr"),
    )
    snap = "SNAP of Li et al., npj Comput. Mater. 6, 70 (2020)"
    yield _lammps_kim(
        "nbtawmo-snap", snap, ("Nb", "Mo", "Ta", "W"), "SNAP_LiChenZheng_2019_NbTaWMo__MO_560387080449_000"
    )
    for name, about, style, file, species in (
        ("cuni-eam", "EAM of Onat and Durukanoğlu, J. Phys.: Condens. Matter 26, 035404 (2014)", "eam/alloy",
         "CuNi.eam.alloy", ("Ni", "Cu")),
        ("alcu-eam", "EAM of Cai and Ye, Phys. Rev. B 54, 8398 (1996)", "eam/alloy", "AlCu.eam.alloy", ("Al", "Cu")),
        ("coal-eam", "EAM of Vailhé and Farkas, J. Mater. Res. 12, 2559 (1997)", "eam/alloy", "CoAl.eam.alloy",
         ("Co", "Al")),
        ("fecr-cdeam", "concentration-dependent EAM of Stukowski et al., Modelling Simul. Mater. Sci. Eng. 17, 075005 "
         "(2009)", "eam/cd", "FeCr.cdeam", ("Fe", "Cr")),
        ("nialh-eam", "EAM of Angelo, Moody and Baskes (1995)", "eam/alloy", "NiAlH_jea.eam.alloy", ("Ni", "Al", "H")),
    ):  # fmt: skip
        yield _lammps_files(name, about, style, (file,), species)
    for name, about, species, model in (
        ("fenicr-eam", "EAM of Bonny et al., Modelling Simul. Mater. Sci. Eng. 21, 085004 (2013)", ("Fe", "Ni", "Cr"),
         "EAM_Dynamo_BonnyCastinTerentyev_2013_FeNiCr__MO_763197941039_000"),
        ("fecuni-eam", "EAM of Bonny et al., Philos. Mag. 89, 3531 (2009)", ("Fe", "Cu", "Ni"),
         "EAM_Dynamo_BonnyPasianotCastin_2009_FeCuNi__MO_469343973171_005"),
        ("cuagau-eam", "EAM of Zhou, Johnson and Wadley, Phys. Rev. B 69, 144113 (2004)", ("Cu", "Ag", "Au"),
         "EAM_Dynamo_ZhouJohnsonWadley_2004NISTretabulation_CuAgAu__MO_318213562153_000"),
        ("pdagh-eam", "EAM of Hale, Wong and Zimmerman (2008), Morse pairs", ("Pd", "Ag", "H"),
         "EAM_Dynamo_HaleWongZimmerman_2008PairMorse_PdAgH__MO_108983864770_005"),
    ):  # fmt: skip
        yield _kim(name, about, species, model)
    universal = "universal, machine-learned, seconds per call"
    yield Recipe("chgnet", universal, (), "pip install chgnet", ("chgnet",), _chgnet)
    for model, modal in (("7net-0", None), ("7net-mf-0", "PBE"), ("7net-l3i5", None)):
        yield Recipe(
            model.replace("7net", "sevennet"),
            universal,
            (),
            "pip install sevenn",
            ("sevenn",),
            _SevenNet(model, modal),
        )


RECIPES: Mapping[str, Recipe] = {r.name: r for r in _recipes()}
