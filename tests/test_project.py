"""The project's files agree with each other: version, licence, packages, citation."""

import tomllib
from pathlib import Path

import sketchvar

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_in_the_wheel():
    found = {"sketchvar"} | {
        ".".join(("sketchvar", *file.parent.relative_to(ROOT).parts))
        for top in ("estimators", "analysis")
        for file in (ROOT / top).rglob("*.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_changelog_and_citation_name_the_version():
    assert f"\n## {sketchvar.__version__} " in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {sketchvar.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_licence_is_the_one_of_the_metadata():
    first = (ROOT / "LICENSE").read_text().splitlines()[0]
    assert first == f"{PROJECT['project']['license']} License"
