"""Zarr folders, versions 2 and 3, and OME-Zarr in them: one array with the metadata that it came with.

A folder travels as its files: names, with slashes, to bytes. So it is read whole, and written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convpinv.app import axes as stack_axes
from convpinv.app import blosc, raster
from convpinv.app.files import MissingExtraError, UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS = ("zarr.json", ".zarray", ".zgroup")
_METADATA = (*MARKS, ".zattrs", ".zmetadata")
# The chunks of a new array: 1024² of a plane, as most viewers like them.
_CHUNK = 1024


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that Zarr has written."""
    return any(Path(path, mark).is_file() for mark in MARKS)


def read_folder(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return all files of a folder by their names below it."""
    found = {}
    try:
        for place, _, names in os.walk(path):
            for name in names:
                file = Path(place, name)
                if file.is_file():
                    found[file.relative_to(path).as_posix()] = file.read_bytes()
    except PermissionError as error:
        raise UnreadableFileError(path, f"permission denied ({error.filename}); make the folder readable") from None
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({reason(error)}); check the folder and the disk") from None
    return found


def read_metadata(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return the files of a folder that say what is in it, by their names below it; no chunk is looked at."""
    found = {}
    try:
        for place, folders, names in os.walk(path):
            here = {name: Path(place, name).read_bytes() for name in names if name in _METADATA}
            found |= {Path(place, name).relative_to(path).as_posix(): body for name, body in here.items()}
            if ".zarray" in here or _is_array(here.get("zarr.json", b"")):
                folders.clear()  # what lies in an array is chunks, and may be millions
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({reason(error)}); check the folder and the disk") from None
    return found


def _is_array(body: bytes) -> bool:
    with contextlib.suppress(ValueError, AttributeError):  # damaged, which whoever reads it says
        return json.loads(body).get("node_type") == "array"
    return False


def version(files: Mapping[str, bytes], name: str) -> Literal[2, 3]:
    """Return the version of the array ``name`` among the files."""
    return 3 if f"{name}/zarr.json".lstrip("/") in files else 2


def decode(
    files: Mapping[str, bytes], path: str | os.PathLike[str], *, gaps: bool = False, axes: str | None = None
) -> Image:
    """Return the picture or the stack in the files of a Zarr folder."""
    import numpy as np

    _zarr(path)
    try:
        name, declared, notes = find(files, path)
    except UnreadableFileError:
        raise
    except Exception as error:  # metadata of any shape: KeyError, TypeError, JSONDecodeError …
        raise _damaged(path, error) from None
    held = sum(map(len, files.values()))
    array = _open(files, name, path)
    try:
        shape = tuple(int(length) for length in array.shape)
        dtype = np.dtype(array.dtype)
        chunks = tuple(int(length) for length in array.chunks)
        declared = declared or own_names(array)
    except Exception as error:
        raise _damaged(path, error) from None
    raster.check_depth(path, dtype)
    two = (*shape[-2:], *shape[:-2]) if len(shape) > 1 else (*shape, 1)
    raster.check_claim(path, two, dtype.itemsize, held)
    raster.check_claim(path, (math.prod(chunks), 1), dtype.itemsize, held)
    names, remarks = stack_axes.resolve(path, shape, declared, axes)
    try:
        broken = blosc.damaged(files, f"{name}/" if name else "", math.prod(chunks) * dtype.itemsize)
        if broken is not None:
            raise ValueError(f"the chunk {broken} is cut off or changed")
        with quiet():
            stored = np.asarray(array[...])
    except Exception as error:  # codecs raise whatever they like on damaged chunks, MemoryError for absurd sizes
        raise _damaged(path, error) from None
    if stored.shape != shape:
        raise UnreadableFileError(path, f"is a damaged Zarr folder (its array is {stored.shape}); get it again")
    prefix = f"{name}/" if name else ""
    return stack_axes.image_of(
        stored,
        path,
        names,
        gaps=gaps,
        format="zarr",
        native={"files": kept(files, name), "array": prefix, "dtype": dtype.str},
        notes=(*notes, *remarks),
    )


def encode(stored: NDArray[Any], image: Image) -> dict[str, bytes]:
    """Return the files of a Zarr folder of stored values, with the metadata that the picture came with."""
    import numpy as np

    array = np.ascontiguousarray(stack_axes.file_order(stored, image, "zarr"))
    names = stack_axes.file_names(image, "zarr")
    if image.format == "zarr":
        files = dict(image.native["files"])
        prefix = image.native["array"]
        if "window" in image.native:
            for key in ("zarr.json", ".zarray"):
                if prefix + key in files:
                    body = json.loads(files[prefix + key])
                    body["shape"] = list(array.shape)
                    files[prefix + key] = json.dumps(body, indent=2).encode()
    else:
        files, prefix = _new(array, names), "0/"
    target = _open(files, prefix.rstrip("/"), "Zarr", write=True)
    with quiet():
        target[...] = array
    return {key: bytes(value.to_bytes()) for key, value in target.store._store_dict.items()}


def _zarr(path: str | os.PathLike[str]) -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingExtraError(f"{path}: Zarr folders need zarr: pip install 'convpinv[zarr]'") from None
    return zarr


def _damaged(path: str | os.PathLike[str], error: BaseException) -> UnreadableFileError:
    return UnreadableFileError(path, f"is a damaged Zarr folder ({reason(error)}); get it again")


def _open(files: Mapping[str, bytes], name: str, path: str | os.PathLike[str], *, write: bool = False) -> Any:
    """Return the array ``name`` among the files, in memory."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    zarr = _zarr(path)
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({key: buffer.from_bytes(body) for key, body in files.items()})
    try:
        with quiet():
            return zarr.open_array(store, path=name, mode="r+" if write else "r", zarr_format=version(files, name))
    except Exception as error:  # metadata of any shape
        raise _damaged(path, error) from None


def find(files: Mapping[str, bytes], path: str | os.PathLike[str]) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the name of the array to work on, the letters of its axes if they are said, and notes."""
    if ".zarray" in files:
        return "", None, ()
    attributes: Any = {}
    if "zarr.json" in files:
        root = json.loads(files["zarr.json"])
        if root["node_type"] == "array":
            return "", None, ()
        attributes = root.get("attributes") or {}
        attributes = attributes.get("ome", attributes)
    elif ".zattrs" in files:
        attributes = json.loads(files[".zattrs"])
    arrays = [
        key.rpartition("/")[0]
        for key in sorted(files)
        if key.endswith("/.zarray")
        or (key.endswith("/zarr.json") and json.loads(files[key]).get("node_type") == "array")
    ]
    scales = attributes.get("multiscales") if isinstance(attributes, dict) else None
    if not scales:
        if len(arrays) != 1:
            raise UnreadableFileError(path, f"is a Zarr group of {len(arrays)} arrays; name the folder of one of them")
        return arrays[0], None, ()
    first = scales[0]
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in first.get("axes", ())]
    name = str(first["datasets"][0]["path"]).strip("/")
    if name not in arrays:
        raise UnreadableFileError(path, f"names an array {name!r} that is not in the folder; get it again")
    left_out = sorted(set(arrays) - {name})
    notes = (f"the array {name} is used; left out: {', '.join(left_out[:8])}",) if left_out else ()
    return name, _letters(names), notes


def _letters(names: Any) -> str | None:
    """Return the letters of named axes, if every axis has one of its own and Y and X are among them."""
    if not names or not all(isinstance(name, str) and len(name) == 1 and name.isalpha() for name in names):
        return None
    letters = "".join(names).upper()
    # NGFF knows no colours that belong to one pixel: its c is a stack of planes, and "s" is not in it.
    return letters if len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters) else None


def own_names(array: Any) -> str | None:
    """Return what an array says of its axes: version 3 by itself, version 2 as xarray writes it."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return _letters(names) if names and len(names) == len(array.shape) else None


def kept(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """Return the metadata of the array ``name`` and of the groups around it, without what repeats that of others."""
    found = {}
    for key, body in files.items():
        folder, _, last = key.rpartition("/")
        if last not in _METADATA or last == ".zmetadata" or not (folder in ("", name) or name.startswith(f"{folder}/")):
            continue
        said = json.loads(body) if last == "zarr.json" else {}
        # Copies of the metadata in the group's own; readers believe them, though the arrays may be left out by now.
        found[key] = body if said.pop("consolidated_metadata", None) is None else json.dumps(said, indent=2).encode()
    return found


def rechunked(files: Mapping[str, bytes], name: str, chunks: Sequence[int]) -> dict[str, bytes]:
    """Return the metadata of the array ``name`` in other chunks, each a file: codecs and attributes as they were."""
    found = kept(files, name)
    prefix = f"{name}/" if name else ""
    key = prefix + ("zarr.json" if version(files, name) == 3 else ".zarray")
    said = json.loads(found[key])
    if key.endswith(".zarray"):
        said["chunks"] = list(chunks)
    else:
        said["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}
        codecs = []
        for codec in said["codecs"]:
            # A shard is a file of many chunks, and written as one.
            is_shard = isinstance(codec, dict) and codec["name"] == "sharding_indexed"
            codecs += codec["configuration"]["codecs"] if is_shard else [codec]
        said["codecs"] = codecs
    found[key] = json.dumps(said, indent=2).encode()
    return found


def _new(array: NDArray[Any], names: str) -> dict[str, bytes]:
    """Return the metadata of a new OME-Zarr 0.5 of one level; of a plain group where its axes are others."""
    chunks = [
        min(length, _CHUNK) if name in "YX" else length if name == "S" else 1
        for name, length in zip(names, array.shape, strict=True)
    ]
    level = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 3, "checksum": False}},
        ],
        "dimension_names": list(names.lower()),
        "attributes": {},
    }
    if array.dtype.itemsize == 1:
        level["codecs"][0] = {"name": "bytes"}
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    kinds = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
    order = [name for name in "TCZYX" if name in names]
    if list(names) == order:
        axes = [{"name": name.lower(), "type": kinds[name]} for name in names]
        scale = [{"type": "scale", "scale": [1.0] * len(names)}]
        scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
        group["attributes"] = {"ome": {"version": "0.5", "multiscales": scales}}
    return {"zarr.json": json.dumps(group, indent=2).encode(), "0/zarr.json": json.dumps(level, indent=2).encode()}
