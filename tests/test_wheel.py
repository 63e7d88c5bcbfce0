"""The wheel works in an environment of its own, beside a user's folder whose names are ours."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
WHOLE = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(*words, cwd, site=""):
    result = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the installed wheel and nothing else."""
    base = tmp_path_factory.mktemp("wheel")
    source, site = base / "source", base / "site"
    for folder in ("sketchvar", "estimators", "analysis"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=WHOLE)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    offline = ["--no-deps", "--no-build-isolation"]
    run(*PIP, "wheel", *offline, "--wheel-dir", base, source, cwd=base)
    (wheel,) = base.glob("*.whl")
    run(*PIP, "install", "--no-deps", "--target", site, wheel, cwd=base)
    return site


@pytest.fixture
def project(tmp_path):
    """A user's own folder, whose modules have the names of our folders."""
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("mine = True\n")
    (tmp_path / "estimators.py").write_text("mine = True\n")
    return tmp_path


@pytest.mark.slow
def test_beside_a_folder_of_the_same_names(site, project):
    words = "import analysis, estimators, sketchvar; assert analysis.mine and estimators.mine"
    found = run(sys.executable, "-c", f"{words}; print(sketchvar.__file__)", cwd=project, site=site)
    assert Path(found.strip()).is_relative_to(site)


@pytest.mark.slow
def test_the_source_of_what_is_compiled_is_there(site):
    kernels = "sketchvar/estimators/kernels"
    files = (ROOT / "estimators" / "kernels").iterdir()
    sources = [path.name for path in files if path.suffix in {".cpp", ".h"}]
    assert len(sources) > 2 and all((site / kernels / name).exists() for name in sources)


@pytest.mark.slow
def test_the_command_runs(site, project):
    words = ["run", "--task", "digits-mlp", "--steps", "5", "--out", "run"]
    run(sys.executable, "-m", "sketchvar", *words, cwd=project, site=site)
    assert (project / "run" / "rows.parquet").exists()


@pytest.mark.slow
def test_the_lines_of_readme_run(site, project):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "uniform-rows" in run(sys.executable, "-c", lines, cwd=project, site=site)
