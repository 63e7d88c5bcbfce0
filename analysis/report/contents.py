"""Contents: what there is to say of a folder: tables, sentences, pictures with captions, and where
the numbers come from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchvar.analysis.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure by the name of its file, made when it is asked for, and a caption."""

    name: str
    caption: str
    draw: Callable[..., "Axes | Figure"]
    wide: bool = False  # it takes a page, and not a column


@dataclass(frozen=True)
class Contents:
    """What a folder says. ``tables`` and ``sentences`` are printed; a page has the ``question``,
    the ``verdict`` (the first sentences, where there is none) and ``details`` too, and explains
    ``words``.
    """

    title: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()
    sentences: tuple[str, ...] = ()
    details: tuple[Table, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    verdict: tuple[str, ...] = ()


def draw(contents: Contents, folder: Path) -> list[Path]:
    """Write every picture to the folder, as PNG and PDF; the paths of the PNGs."""
    import matplotlib as mpl

    from sketchvar.analysis.style import save

    mpl.use("agg")
    paths = []
    for picture in contents.pictures:
        paths.append(save(picture.draw(), folder / picture.name)[0])
    return paths


def name_folders(folders: Sequence[Path]) -> list[str]:
    """What runs are called: as their folders, with those above where these are alike."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
