"""The house: imports go one way, and ``import convpinv`` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import convpinv

PACKAGE = Path(convpinv.__file__).parent
# Each wing stands on those before it and never looks back down.
MAY_IMPORT = {
    "arguments": {"arguments"},
    "linalg": {"arguments", "linalg"},
    "functional": {"arguments", "linalg", "functional"},
    "nn": {"arguments", "linalg", "nn"},
    "testing": {"arguments", "linalg", "testing"},
    "imaging": {"arguments", "linalg", "imaging"},
    "__main__": {"app"},
    "app": {"arguments", "linalg", "imaging", "app", "__version__"},
}
# Floors of linalg, from the ground up: a module imports from its own floor or a lower one.
FLOORS = (
    ("geometry", "precision", "response", "source"),
    ("polyphase", "linear_operator", "eigenvalues"),
    ("spectrum",),
    ("correlation", "scalar_symbol", "matrix_inverses"),
    ("convolution",),
    ("structure",),
    ("conditioning",),
    ("solvers.base",),
    ("solvers.conjugate_gradients",),
    (
        "solvers.block_plan",
        "solvers.undamped",
        "solvers.frame",
        "solvers.border.layout",
        "solvers.border.elimination",
    ),
    ("solvers.border.systems",),
    ("solvers.border.half_periodic", "solvers.border.refinement"),
    ("solvers.border.cost", "solvers.border.probes"),
    ("solvers.fourier", "solvers.separable", "solvers.dense", "solvers.krylov", "solvers.border.solver"),
    ("solvers.blocks",),
    ("solvers.choose",),
    ("inverse",),
    ("derivatives",),
    ("pinv", "symbol_norm"),
    ("leading_values",),
    ("svd",),
    ("bounds", "determinant"),
    ("clipping",),
    ("spectral",),
    ("invertible",),
    ("operator",),
    ("kernel_batch", "current", "one_shot"),
)
HEAVY = (
    "dask",
    "zarr",
    "astropy",
    "matplotlib",
    "fastapi",
    "tifffile",
    "imagecodecs",
    "PIL",
    "scipy",
    "skimage",
    "typer",
    "rich",
)


def modules() -> list[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]


def imports(module: str) -> set[str]:
    """Modules of this package that a module imports, relative to the package."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.removeprefix("convpinv.") for name in found if name.startswith("convpinv.")}


@pytest.mark.parametrize("module", [name for name in modules() if name != "__init__"])
def test_wings_never_look_down(module: str) -> None:
    wing = module.split(".")[0]
    assert wing in MAY_IMPORT, f"{module} stands in no wing"
    for name in imports(module):
        assert name.split(".")[0] in MAY_IMPORT[wing], f"{module} imports {name}"


def test_upper_wings_use_linalg_by_its_public_names() -> None:
    for module in modules():
        if module.split(".")[0] not in ("imaging", "app"):
            continue
        for name in imports(module):
            if name.startswith("linalg"):
                assert name.count(".") == 1, f"{module} reaches into convpinv.{name}"
            if module.startswith("app") and name.startswith("imaging"):
                assert name.count(".") == 1 or name.startswith("imaging.psf"), f"{module} reaches into convpinv.{name}"


def test_floors_of_linalg() -> None:
    heights = {name: height for height, floor in enumerate(FLOORS) for name in floor}
    found = {name.removeprefix("linalg.") for name in modules() if name.startswith("linalg.")}
    assert {name for name in found if not name.endswith("__init__")} == set(heights)
    for name, height in heights.items():
        for imported in imports(f"linalg.{name}"):
            parts = imported.removeprefix("linalg.").split(".")
            target = next((".".join(parts[:n]) for n in (3, 2, 1) if ".".join(parts[:n]) in heights), None)
            if imported.startswith("linalg") and target is not None:
                assert heights[target] <= height, f"{name} looks up to {target}"


def test_no_circles() -> None:
    """Imports inside functions count too: they hide a circle, and do not open it."""
    every = set(modules())
    graph = {}
    for module in every - {name for name in every if name.endswith("__init__")}:
        targets = {".".join(name.split(".")[:depth]) for name in imports(module) for depth in (1, 2, 3)}
        graph[module] = {target for target in targets if target in every and target != module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_importing_brings_torch_and_nothing_heavier() -> None:
    code = (
        "import sys, convpinv; light = 'torch' in sys.modules;"
        "convpinv.Conv2dOperator, convpinv.deblur, convpinv.psf, convpinv.testing;"
        f"print(light, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(code) == "False []"


def test_importing_adds_only_what_is_our_own() -> None:
    """What it costs beside torch is reading a few dozen files of this package."""
    code = (
        "import sys, torch; before = set(sys.modules); import convpinv; convpinv.conv_pinv2d;"
        "new = {name for name in sys.modules if name not in before};"
        "print(sorted({name.split('.')[0] for name in new}), len(new) < 100, any('imaging' in name for name in new))"
    )
    assert run(code) == "['convpinv'] True False"


def test_public_names_are_there() -> None:
    for name in convpinv.__all__:
        assert getattr(convpinv, name) is not None
    assert set(convpinv.__all__) <= set(dir(convpinv))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        convpinv.nonsense  # pyright: ignore[reportAttributeAccessIssue] # noqa: B018


def test_only_the_door_raises_on_arguments() -> None:
    for module in modules():
        if module.startswith(("arguments", "app")):
            continue
        source = (PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                assert node.exc.func.id not in ("ArgumentError", "ValueError", "TypeError"), module
