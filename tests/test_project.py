"""What stands around the code agrees with it: versions, dependencies, licenses."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"astropy-base": "astropy", "dask-core": "dask", "matplotlib-base": "matplotlib"}


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))  # JSON is YAML


@pytest.mark.parametrize("name", ["CITATION.cff", ".zenodo.json"])
def test_citations_agree_with_the_package(name: str) -> None:
    cited = read(name)
    assert str(cited["version"]) == project()["version"]
    assert cited["license"] == project()["license"]
    assert cited["title"] == f"ztfxr: {project()['description']}"


def test_zenodo_is_json() -> None:
    json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))


def floors(requirements: list[str], names: dict[str, str]) -> dict[str, str]:
    found = {}
    for text in requirements:
        name, floor = re.fullmatch(r"([\w.-]+?)(?:\[\w+\])?\s*>=(\S+)", text).groups()  # type: ignore[union-attr]
        found[names.get(name, name)] = floor
    return found


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = read("conda/recipe.yaml")
    run = [line for line in recipe["requirements"]["run"] if not line.startswith("python ")]
    assert floors(run, CONDA_NAMES) == floors(project()["dependencies"], {})
    assert recipe["context"]["version"] == project()["version"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_forms_and_workflows_are_yaml(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    actions = re.findall(r"uses: \S+@(\S+)", text)
    assert all(re.fullmatch(r"[0-9a-f]{40}", version) for version in actions)  # a tag may move, a commit may not


def test_the_paper_cites_what_its_bibliography_has() -> None:
    text = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(set(re.findall(r"@(\w+\d{4})", text))) == sorted(entries)
    assert 250 <= len(text.split("---", 2)[2].split()) <= 1000  # what JOSS asks for
