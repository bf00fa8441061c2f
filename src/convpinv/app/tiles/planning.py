"""From a request to a plan: look at a sample, agree on the numbers, cut the tiles to the memory."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv import __version__
from convpinv.app import files, images, psf_source, raster
from convpinv.app.axes import canonical_order
from convpinv.app.console import Working
from convpinv.app.files import UnreadableFileError
from convpinv.app.outputs import is_store
from convpinv.app.request import Request
from convpinv.app.tiles import memory
from convpinv.app.tiles.arrays import Source
from convpinv.app.tiles.form import Form
from convpinv.app.tiles.plan import GRAIN, LARGEST_CORE, Layout, fitting
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convpinv.imaging import Agreement

# The sample: so many blocks a side, of so many pixels a side or four times the PSF.
BLOCKS, BLOCK = 4, 256
# A seam this many times below the noise is not to be seen, whatever the depth of the file; and so many times below the
# span of the values where there is no noise.
BELOW_NOISE, BELOW_SPAN = 100.0, 1e6
# What a worker of a cluster holds beyond what a process of its own does.
WORKER_EXTRA = 100 * 2**20


@dataclass(frozen=True)
class Plan:
    """All that a tile's restoration depends on, and what is said of it; it goes to workers, and to disk."""

    source: str
    stamp: tuple[int, ...]
    shape: tuple[int, ...]
    names: str
    order: str
    dtype: str
    channels: int
    has_alpha: bool
    agreement: Mapping[str, Any]
    layout: Layout
    halo: str
    device: str
    threads: int
    asked: Mapping[str, Any]
    psf: str
    limit: int
    base: int
    largest: float
    seconds: float
    notes: tuple[str, ...]
    version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**dataclasses.asdict(self), "layout": self.layout.to_dict()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Plan:
        """Return what :meth:`to_dict` was made from."""
        tuples = {name: tuple(values[name]) for name in ("stamp", "shape", "notes")}
        return Plan(**{**values, **tuples, "layout": Layout.from_dict(values["layout"])})

    @property
    def form(self) -> Form:
        """What the output is."""
        return Form(self.shape, canonical_order(self.names), self.order, self.dtype, self.layout.grain)

    def describe(self) -> str:
        """Width, height, channels and depth, and the stack, as :meth:`convpinv.app.raster.Image.describe` says them."""
        layout = ("RGB" if self.channels == 3 else "grey") + ("+alpha" if self.has_alpha else "")
        form = self.form
        planes = "".join(f", {name}={count}" for name, count in zip(form.names, form.stack, strict=False))
        return f"{raster.size_text(self.layout.size)} {layout}, {self.dtype}{planes}"

    def agreed(self) -> Agreement:
        """Return the numbers that hold for all tiles."""
        import torch

        from convpinv.imaging import Agreement

        values = dict(self.agreement)
        kernels = torch.tensor(values.pop("kernels"), dtype=torch.float64)
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return Agreement(kernels=kernels, **fields)


def make(request: Request, source: Source, core: int | None, grain: int | None) -> Plan:
    """Return the plan; ``core`` and ``grain`` override what the memory asks for."""
    import torch

    from convpinv.imaging import agree, border_gap

    if request.device != "cpu" and not torch.cuda.is_available():
        raise ArgumentError(f"--device {request.device}: torch sees no such device here; use --device cpu")
    if isinstance(request.strength, str):
        raise ArgumentError(
            f"--strength {request.strength} restores the whole picture many times; in tiles it may be auto or a number"
        )
    psf = psf_source.load(request.psf_text)
    limit = memory.parse(request.memory) if request.memory else (memory.available() or 2 * 2**32) // 2
    blocks = sample(source, psf.psf.shape[-2:])
    with Working(str(request.source)):
        agreement = agree(
            torch.from_numpy(blocks),
            psf.psf,
            noise=request.noise,
            prior=request.prior,
            boundary=request.boundary,
            strength=request.strength,
        )
        found = agreement.reach(tolerance(source, agreement))
        rates = _rates(agreement, blocks, request.device)
    workers = request.workers or 1
    base = memory.held() + (WORKER_EXTRA if request.workers else 0)
    share = limit if request.scheduler else limit // (workers + (workers > 1))
    budget = share - base - memory.RESERVE
    taps = (int(agreement.kernels.shape[-2]), int(agreement.kernels.shape[-1]))
    if 0 < budget < 2 * source.decoded:
        at_once = f"is decoded {memory.text(source.decoded)} at a time, too much for --memory"
        raise UnreadableFileError(source.path, f"{at_once}; write it in tiles first")
    step = grain or GRAIN
    layout = Layout(
        planes=source.planes,
        size=source.size,
        taps=taps,
        gap=tuple(border_gap(n, k, agreement.boundary) for n, k in zip(source.size, taps, strict=True)),  # pyright: ignore[reportArgumentType]
        halo=found.halo,
        core=core or LARGEST_CORE,
        grain=step,
        is_linear=agreement.is_linear,
    )
    width = blocks.shape[1]
    cost = _cost(agreement, width, source)
    if core is None:
        layout = fitting(layout, cost, budget)
    windows = list(layout.windows())
    seconds = layout.planes * width * sum(rows * columns * rates[inside] * n for rows, columns, inside, n in windows)
    at_once = max(1, workers)
    notes = [*source.notes, *psf.notes]
    if source.dtype == "uint8":
        notes.append("in tiles the values of the file are taken as light, whatever the file says of its curve")
    if not found.is_reached:
        notes.append(
            f"the restoration reaches farther than {found.halo} px at this strength: the seam may exceed what cannot "
            "be seen; a larger --strength reaches less far"
        )
    values = {field.name: getattr(agreement, field.name) for field in dataclasses.fields(agreement)}
    return Plan(
        source=os.path.abspath(source.path),
        stamp=files.stamp(source.path),
        shape=source.shape,
        names=source.names,
        order=order_of(source, request.target),
        dtype=source.dtype,
        channels=width,
        has_alpha=source.channels in (2, 4),
        agreement={**values, "kernels": agreement.kernels.tolist()},
        layout=layout,
        halo=str(found),
        device=request.device,
        threads=max(1, torch.get_num_threads() // at_once) if request.workers else torch.get_num_threads(),
        asked=asked(request),
        psf=psf.text,
        limit=limit,
        base=base,
        largest=max(cost(rows, columns, inside) for rows, columns, inside, _ in windows),
        seconds=seconds / at_once,
        notes=tuple(notes),
    )


def order_of(source: Source, target: Path) -> str:
    """Return the letters of the axes in the order of the output: as in memory, of one kind that of the input."""
    # A TIFF is written plane by plane, whatever it was.
    own = source.format == images.format_of(target) != "tiff"
    return source.names if own else source.order


def asked(request: Request) -> dict[str, Any]:
    """Return what of a request decides the result, to tell whether a plan is still its plan."""
    names = ("psf", "prior", "strength", "noise", "boundary", "axes")
    return {name: getattr(request, name) for name in names} | {"psf": _content(request.psf_text)}


def _content(psf: str) -> str:
    """Return a PSF's text; of a file its content's digest as well."""
    path = psf_source.file_of(psf)
    if path is None or not (path.is_file() or is_store(path)):
        return psf
    return f"{psf} {files.content(path)[1]}"


def tolerance(source: Source, agreement: Agreement) -> float:
    """Return the seam that nobody sees: a quarter of the file's level, or a hundredth of the noise if that is more."""
    import numpy as np

    noise = min(agreement.noise) / BELOW_NOISE
    if np.dtype(source.dtype).kind in "ui":
        return max(noise, 0.25 / float(np.iinfo(source.dtype).max))
    return max(noise, (agreement.high - agreement.low) / BELOW_SPAN, 1e-30)


def sample(source: Source, taps: tuple[int, ...]) -> NDArray[Any]:
    """Return blocks (B, C, h, w) spread evenly over the planes and over each of them, alpha left out."""
    import numpy as np

    height, width = (min(max(BLOCK, 4 * k), n) for k, n in zip(taps, source.size, strict=True))
    if any(k > n for k, n in zip(taps, source.size, strict=True)):
        raise ArgumentError(
            f"--psf is {taps[1]}x{taps[0]} and {source.path} {source.size[1]}x{source.size[0]} pixels; "
            "it must not be larger than the picture"
        )
    tops, lefts = (_starts(n, b) for n, b in zip(source.size, (height, width), strict=True))
    places = list(itertools.product(tops, lefts))
    planes = np.linspace(0, source.planes - 1, min(source.planes, BLOCKS * BLOCKS)).round().astype(int).tolist()
    # Of a stack, plane after plane shows another block, and no fewer than all blocks are taken.
    count = max(len(places), len(planes))
    blocks = []
    for index in range(count):
        top, left = places[index * len(places) // count]
        stored = source.read(planes[index % len(planes)], (top, top + height), (left, left + width))
        values = raster.seen_range(raster.split_alpha(stored, source.path)[0], source.missing)
        if np.isfinite(values).all(axis=None) or np.isfinite(values).any(axis=(0, 1)).all():
            blocks.append(values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0))
    if not blocks:
        raise UnreadableFileError(source.path, "holds nothing but NaN where it was sampled; fill it in first")
    return np.ascontiguousarray(np.stack(blocks))


def _starts(length: int, block: int) -> list[int]:
    count = min(BLOCKS, -(-length // block))
    return [0] if count < 2 else [(length - block) * index // (count - 1) for index in range(count)]


def _rates(agreement: Agreement, blocks: NDArray[Any], device: str) -> dict[bool, float]:
    """Return measured seconds a pixel and channel, inside and at the border, from a block of the sample."""
    import numpy as np

    from convpinv.imaging import PartRestorer

    restorer = PartRestorer(agreement, device)
    side = 96 if agreement.prior == "nonlocal" else BLOCK
    block = blocks[len(blocks) // 2, :, :side, :side]
    block = block[0] if len(block) == 1 else np.moveaxis(block, 0, -1)
    rates = {}
    for inside in (True, False):
        prepared = restorer.prepare(block.shape[:2], block.dtype) if inside else ()
        for _ in range(2 if agreement.is_linear and inside else 1):  # the first transform of a size plans it
            start = time.perf_counter()
            restorer(block, inside=inside, prepared=prepared)
            rates[inside] = (time.perf_counter() - start) / block.size
    return rates


def _cost(agreement: Agreement, channels: int, source: Source) -> Any:
    double = source.dtype == "float64"
    together = channels if agreement.prior in ("tv", "hyperlaplacian", "nonlocal") and channels > 1 else 1

    def cost(rows: int, columns: int, inside: bool) -> float:
        return memory.window_bytes(
            "filter" if agreement.is_linear and (inside or agreement.boundary == "circular") else agreement.prior,
            rows * columns,
            channels,
            together,
            double,
        )

    return cost
