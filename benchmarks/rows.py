"""The rows of the table: what runs, how it may be tuned, and what it needs."""

import dataclasses
import difflib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flax_mnist.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run a row. Of several the fastest is taken, after trials that are kept."""

    entry: str  #: `module:class` of the `Program`.
    #: What its constructor takes besides the data and the settings.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()  #: Packages besides NumPy.
    #: Whether one thread may beat all of them: both are tried. JAX always takes all.
    tune_threads: bool = False
    label: str | None = None  #: What tells it apart from the row's other variants.

    def missing(self, cores: int) -> str | None:
        """Why it cannot run here, as far as that can be told without starting it."""
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        if "mode" in self.options and not (shutil.which("c++") or shutil.which("g++")):
            return "torch.compile needs a C++ compiler"
        if self.options.get("workers", 0) > cores:
            return "more loader workers than cores"
        return None


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    label: str
    #: headline: batch 64, float32, every image once an epoch, the short last batch kept, the update
    #: included, one network. Whatever breaks that rule is labelled.
    kind: Literal["headline", "labelled", "ceiling"]
    family: Literal["pytorch", "ours", "peers", "ceilings"]
    variants: tuple[Variant, ...]
    quick: bool = False  #: Whether `--quick` has it.

    @property
    def rank(self) -> int:
        """When it is started: where time is short, the last ones are left out."""
        return FIRST.index(self.name) if self.name in FIRST else len(FIRST)

    def candidates(self, cores: int, device: str) -> list[tuple[Variant, int]] | str:
        """Variants and numbers of threads to try; where there are none, the reason."""
        reasons = [variant.missing(cores) for variant in self.variants]
        there = [v for v, reason in zip(self.variants, reasons, strict=True) if reason is None]
        if not there:
            return next(reason for reason in reasons if reason)
        # A GPU's programs wait for one thread that feeds it: more of them decide nothing.
        tried = {1, cores} if device == "cpu" else {cores}
        return [
            (variant, threads)
            for variant in there
            for threads in sorted(tried if variant.tune_threads else {cores})
        ]


#: Rows without which a table says little, of them the slowest last, then those of other frameworks,
#: of which users choose.
FIRST = (
    "J2", "P3", "G1", "N1", "J1", "G2", "J4", "P1",
    "P5", "F1", "K1", "E1", "L1", "S1", "K2", "C1", "T1", "A1", "P6",
)  # fmt: skip
LOOPS = "benchmarks.loops"
PEERS = "benchmarks.loops.peers"


def _pytorch(name: str, label: str | None = None, **options: Any) -> Variant:
    return Variant(f"{LOOPS}.pytorch:{name}", options, ("torch",), True, label)


def _loader(name: str, label: str | None = None, **options: Any) -> Variant:
    # The tutorial's loader makes a PIL image of every sample.
    return Variant(f"{LOOPS}.pytorch:{name}", options, ("torch", "PIL"), True, label)


def _ours(name: str, label: str | None = None, **options: Any) -> Variant:
    needs = ("jax", "flax", "optax")
    return Variant(f"{LOOPS}.this_project:{name}", options, needs, label=label)


def _keras(steps: int) -> Variant:
    options, label = {"steps_per_execution": steps}, f"{steps} steps a call"
    return Variant(f"{PEERS}.keras_on_jax:Fit", options, ("keras", "jax"), label=label)


def _peer(entry: str, *needs: str, tune: bool = False, **options: str) -> Variant:
    """One that needs these packages; of several, told apart by what its only option says."""
    label = next(iter(options.values()), None)
    return Variant(f"{PEERS}.{entry}", options, needs, tune, label)


def _ceiling(name: str, tune: bool = False, **options: Any) -> tuple[Variant, ...]:
    return (
        Variant(f"{LOOPS}.ceilings.by_numpy:Numpy{name}", options, (), tune, "NumPy"),
        Variant(f"{LOOPS}.ceilings.by_pytorch:Torch{name}", options, ("torch",), tune, "PyTorch"),
        Variant(f"{LOOPS}.ceilings.by_xla:Xla{name}", options, ("jax",), False, "XLA"),
    )


PEAK_SIZE = 2048  #: Rows of the large product: 17 GFLOP, far more work than memory traffic.
COPY_SIZE = 2**26  #: Numbers in the large copy: 268 MB, more than any cache.

_TUTORIAL = (_loader("Tutorial"),)
_TUNED = tuple(_loader("TunedLoader", f"{w} loader workers", workers=w) for w in (0, 1, 2))
_OPTIMIZERS = tuple(_pytorch("Eager", name, optimizer=name) for name in ("fused", "foreach"))
_COMPILED = (_pytorch("Compiled", mode="default"),)
_AHEAD = (Variant(f"{LOOPS}.ahead_of_time:AheadOfTime", {}, ("torch",), True),)
_LESS_OVERHEAD = (_pytorch("Compiled", mode="reduce-overhead"),)
_MANY = (_ours("ManyModels", "one vmap"), _ours("ModelsByCore", "a core for each"))
_BFLOAT16 = (_ours("EpochScan", precision="bfloat16"),)
_NUMPY = (Variant("benchmarks.loops.numpy_backprop:Backpropagation", tune_threads=True),)
_TINYGRAD = (_peer("tinygrad_jit:Jit", "tinygrad"),)
_KERAS_ON_TORCH = (_peer("keras_on_torch:Fit", "keras", "torch", tune=True),)
_NNX = tuple(_peer("flax_nnx:Loop", "flax", how=how) for how in ("jit", "cached", "scan"))
_EQUINOX = tuple(_peer("equinox_optax:Loop", "equinox", how=how) for how in ("jit", "scan"))
_LIGHTNING = tuple(
    _peer("pytorch_lightning:Fit", "lightning", tune=True, batches=batches)
    for batches in ("collated", "whole")
)
_SCIKIT_LEARN = (_peer("scikit_learn:PartialFit", "sklearn", tune=True),)
_LIBTORCH = (_peer("libtorch:InCpp", "torch", tune=True),)
_LARGE_PRODUCT = _ceiling("LargeProduct", size=PEAK_SIZE)

ROWS: tuple[Row, ...] = (
    Row("P1", "the tutorial's loop", "headline", "pytorch", _TUTORIAL, quick=True),
    Row("P2", "P1, loader tuned", "headline", "pytorch", _TUNED),
    Row("P3", "eager on the device", "headline", "pytorch", (_pytorch("Eager"),), quick=True),
    Row("P4", "fused or foreach", "headline", "pytorch", _OPTIMIZERS),
    Row("P5", "torch.compile", "headline", "pytorch", _COMPILED),
    Row("P6", "reduce-overhead", "headline", "pytorch", _LESS_OVERHEAD),
    Row("P7", "CUDA graph", "headline", "pytorch", (_pytorch("CudaGraph"),)),
    Row("A1", "ahead of time", "headline", "pytorch", _AHEAD),
    Row("P8", "vmap over models", "labelled", "pytorch", (_pytorch("VmapModels"),)),
    Row("P9", "P3 in TF32", "labelled", "pytorch", (_pytorch("Eager", tf32=True),)),
    Row("J1", "jitted step a call", "headline", "ours", (_ours("Step"),), quick=True),
    Row("J2", "epoch scan: the CLI", "headline", "ours", (_ours("EpochScan"),), quick=True),
    Row("J3", "all epochs at once", "headline", "ours", (_ours("AllEpochs"),)),
    Row("J4", "many models: sweep", "labelled", "ours", _MANY, quick=True),
    Row("J5", "J2 in bfloat16", "labelled", "ours", _BFLOAT16),
    Row("J6", "J2 in TF32", "labelled", "ours", (_ours("FrameworkPrecision"),)),
    Row("N1", "NumPy, by hand", "headline", "peers", _NUMPY, quick=True),
    Row("K1", "Keras 3 on JAX", "headline", "peers", (_keras(1), _keras(32))),
    Row("K2", "Keras 3 on PyTorch", "headline", "peers", _KERAS_ON_TORCH),
    Row("F1", "Flax NNX", "headline", "peers", _NNX),
    Row("E1", "Equinox + optax", "headline", "peers", _EQUINOX),
    Row("L1", "PyTorch Lightning", "headline", "peers", _LIGHTNING),
    Row("C1", "LibTorch in C++", "headline", "peers", _LIBTORCH),
    Row("S1", "scikit-learn", "headline", "peers", _SCIKIT_LEARN),
    Row("T1", "tinygrad", "headline", "peers", _TINYGRAD),
    Row("G1", "the eight products", "ceiling", "ceilings", _ceiling("Products", True), quick=True),
    Row("G2", "a large product", "ceiling", "ceilings", _LARGE_PRODUCT, quick=True),
    Row("G3", "a large copy", "ceiling", "ceilings", _ceiling("Copy", size=COPY_SIZE)),
)


def named(words: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in any case, in the order of the table.

    Raises:
        RequestError: there is none of a name.
    """
    by_name = {row.name: row for row in ROWS}
    for word in words:
        if word.upper() not in by_name:
            meant = difflib.get_close_matches(word.upper(), by_name, n=1)
            hint = f"Did you mean {meant[0]}?" if meant else f"There are {', '.join(by_name)}."
            raise RequestError(f"--rows {word}: there is no such row. {hint}")
    wanted = {word.upper() for word in words}
    return tuple(row for row in ROWS if row.name in wanted)
