"""Docstrings of public functions: numpydoc's form, entries that stand alone, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import ztfxr
from ztfxr import pipeline, recipes, samples, testing

API = Path(__file__).parents[1] / "docs" / "api"
FUNCTIONS = sorted(n for n in ztfxr.__all__ if inspect.isfunction(getattr(ztfxr, n)))
# Types are in the signature, entries that belong together share one, and nothing is owed where there is nothing to add.
NOT_OWED = {"PR03", "PR04", "RT03", "RT04", "SA01", "SA02", "SA03", "SA04", "EX01", "ES01", "SS05", "GL08"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_form(name: str) -> None:
    errors = validate(f"ztfxr.{name}")["errors"]
    assert [f"{code}: {text}" for code, text in errors if code not in NOT_OWED] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_entries_stand_alone(name: str) -> None:
    doc = NumpyDocString(inspect.getdoc(getattr(ztfxr, name)) or "")
    for entry in doc["Parameters"]:
        text = " ".join(entry.desc)
        assert not re.match(r"(Of|As of|That of|Those of)\b", text), f"{entry.name}: {text}"
        assert not re.search(r"[;,:]\s*or\.?$", text), f"{entry.name}: {text}"


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if ">>>" in (getattr(ztfxr, n).__doc__ or "")])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = getattr(ztfxr, name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    with mpl.rc_context({"backend": "agg"}):
        for test in doctest.DocTestFinder(recurse=False).find(function, name, globs={"ztfxr": ztfxr}):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("module", [ztfxr, pipeline, recipes, samples, testing], ids=lambda m: m.__name__)
def test_every_name_has_its_page(module: ModuleType) -> None:
    """The pages of `docs/api` list every public name once, each under the module that it is of."""
    found: list[str] = []
    for page in API.glob("*.rst"):
        text = page.read_text(encoding="utf-8")
        if f".. currentmodule:: {module.__name__}\n" in text:
            found += re.findall(r"^   (\w+)$", text, flags=re.M)
    public = [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    missing = sorted(set(public) - set(found))
    assert not missing, f"add to a page of docs/api: {', '.join(missing)}"
    assert sorted(found) == sorted(public)
