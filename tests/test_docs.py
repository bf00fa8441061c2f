"""The documentation is true: its code runs and prints what the page says, its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import math
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import convpinv

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").glob("*.md")]
    if path.is_file()
)
# Blocks marked ``python no-run``: (page, first line of the block). Empty is best; each entry needs a reason beside it.
NOT_RUN: set[tuple[str, str]] = set()

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|opt|home|root|tmp|usr|mnt|Users|venv)(?=/)|\b[A-Z]:\\")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: the line of its first content line, its info string and its text."""

    line: int
    info: str
    text: str


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    index = 0
    while index < len(lines):
        opening = FENCE.match(lines[index])
        if opening is None:
            index += 1
            continue
        start = index + 1
        index = start
        while index < len(lines) and lines[index].strip() != opening["ticks"]:
            index += 1
        assert index < len(lines), f"{name(page)}:{start}: a block that never ends"
        indent = len(opening["indent"])
        found.append(Block(start + 1, opening["info"].strip(), "\n".join(line[indent:] for line in lines[start:index])))
        index += 1
    return tuple(found)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable(page: Path) -> bool:
    return any(block.info == "python" for block in blocks(page))


def same_output(printed: str, shown: str) -> bool:
    """Words exactly; numbers to 5 %, those that are written with an exponent (rounding, mostly) to a factor of 10."""
    printed, shown = (" ".join(text.split()) for text in (printed, shown))
    if NUMBER.sub("#", printed) != NUMBER.sub("#", shown):
        return False
    for left, right in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        found, said = float(left), float(right)
        if "e" in left or "e" in right:
            if found != said and (found * said <= 0 or abs(math.log10(found / said)) > 1):
                return False
        elif "." in left or abs(said) > 20:
            if abs(found - said) > 0.05 * abs(said):
                return False
        elif found != said:
            return False
    return True


# torch's own: its forward mode scripts decompositions, and its compiler makes a Function to trace one.
@pytest.mark.filterwarnings("ignore:`torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name)
def test_code_of_page_runs_and_prints_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    printed = ""
    for block in blocks(page):
        if block.info == "python":
            # Blank lines in front, so that a traceback names the line of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
            capture = io.StringIO()
            with contextlib.redirect_stdout(capture):
                exec(code, namespace)
            printed = capture.getvalue()
        elif block.info == "output":
            where = f"{name(page)}:{block.line}"
            assert same_output(printed, block.text), f"{where} shows\n{block.text}\nand the code prints\n{printed}"


def test_the_comparison_of_outputs_can_fail() -> None:
    assert same_output("20.1 dB after 3 steps, error 2e-07\n", "20.3 dB  after 3 steps, error 1e-7")
    assert not same_output("20.1 dB", "22.3 dB")
    assert not same_output("3 steps", "4 steps")
    assert not same_output("error 2e-5", "error 1e-7")
    assert not same_output("converged", "stopped")
    assert not same_output("", "anything")


def test_blocks_that_are_not_run_are_listed() -> None:
    marked = {
        (name(page), block.text.splitlines()[0])
        for page in PAGES
        for block in blocks(page)
        if block.info.startswith("python") and block.info != "python"
    }
    assert marked == NOT_RUN


def test_output_blocks_follow_code() -> None:
    for page in PAGES:
        previous = ""
        for block in blocks(page):
            if block.info == "output":
                assert previous == "python", f"{name(page)}:{block.line}: an output block without code before it"
            previous = block.info


def modules() -> list[str]:
    walked = pkgutil.walk_packages(convpinv.__path__, "convpinv.")
    return ["convpinv", *(found.name for found in walked if not found.name.endswith("__main__"))]


@pytest.mark.parametrize("module", modules())
def test_docstring_examples(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = importlib.import_module(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report = io.StringIO()
    for example in doctest.DocTestFinder(exclude_empty=True).find(loaded, module):
        if example.examples:
            runner.run(example, out=report.write)
    assert runner.failures == 0, report.getvalue()


def test_public_functions_have_examples() -> None:
    without = []
    for public in convpinv.__all__:
        value = getattr(convpinv, public)
        if callable(value) and not isinstance(value, type) and ">>>" not in (value.__doc__ or ""):
            without.append(public)
    assert not without


def test_the_three_lists_of_public_names_agree() -> None:
    """Lazy names stand in a table, in ``__all__`` and in a block for type checkers (decision 8)."""
    tree = ast.parse(Path(convpinv.__file__).read_text(encoding="utf-8"))
    checked = {
        alias.asname or alias.name
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert set(convpinv.__all__) == set(convpinv._HOMES) == checked
    assert list(convpinv.__all__) == sorted(convpinv.__all__)


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        inside ^= line.startswith("```")
        if not inside and line.startswith("#"):
            text = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(text.replace(" ", "-"))
    return found


def prose(page: Path) -> str:
    """Text of a page without its blocks and inline code, in which brackets mean something else."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page: Path) -> None:
    for match in LINK.finditer(prose(page)):
        target = match["target"] or match["image"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        destination = (page.parent / path).resolve() if path else page
        assert destination.exists(), f"{name(page)}: the link to {target} leads nowhere"
        assert destination.is_relative_to(ROOT), f"{name(page)}: the link to {target} leaves the repository"
        if anchor and destination.suffix == ".md":
            assert anchor in slugs(destination), f"{name(page)}: {target} has no such heading"


def test_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    targets = {
        (index.parent / match["target"].partition("#")[0]).resolve()
        for match in LINK.finditer(prose(index))
        if match["target"]
    }
    pages = {path.resolve() for path in (ROOT / "docs").glob("*.md")} - {index.resolve()}
    assert pages <= targets, sorted(path.name for path in pages - targets)


def test_decisions_are_numbered_once() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [record.split("-")[0] for record in records]
    assert records
    assert len(numbers) == len(set(numbers)), records
    for record in records:
        heading = (ROOT / "docs" / "decisions" / record).read_text(encoding="utf-8").splitlines()[0]
        assert heading.startswith(f"# {int(record.split('-')[0])}. "), f"{record} begins with {heading!r}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_names_a_place_on_somebodys_machine(page: Path) -> None:
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert not MACHINE_PATH.search(line), f"{name(page)}:{number}: {line}"


def test_pages_are_found() -> None:
    # A glob that matches nothing would turn every test of this file green.
    assert {"docs/index.md", "docs/three-jobs.md", "docs/conventions.md", "CHANGELOG.md"} <= {
        name(page) for page in PAGES
    }
    assert sum(block.info == "python" for page in PAGES for block in blocks(page)) >= 15
