"""Every public name says what it takes, in which shape, and what it raises: the names are those of
the site's API, and the methods that a class there adds to its bases.
"""

import ast
import functools
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from sketchvar.estimators import Coarse, Estimator

ROOT = Path(__file__).parents[1]
LISTED = re.compile(r"^::: (\S+)\n    options: \{ members: \[(.*?)\] \}", re.MULTILINE)
PAGES = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
# told once, at the head of their page
PICTURES = {"ax"}
ESTIMATORS = {"x", "y", "m", "n", "p", "q", "kept", "seed", "dtype"}


def unwrap(found):
    """The function of a method, a property or anything decorated."""
    if isinstance(found, property | functools.cached_property):
        found = getattr(found, "fget", None) or found.func
    return inspect.unwrap(getattr(found, "__func__", found))


def list_public():
    """Full name -> function or class."""
    found = {}
    for module, names in LISTED.findall(PAGES):
        for name in names.split(", "):
            one = getattr(import_module(module), name)
            if not callable(one):
                continue
            found[f"{module}.{name}"] = one
            for key, value in vars(one).items() if inspect.isclass(one) else ():
                own = not any(hasattr(base, key) for base in one.__mro__[1:])
                if own and not key.startswith("_") and inspect.isfunction(unwrap(value)):
                    found[f"{module}.{name}.{key}"] = unwrap(value)
    return found


PUBLIC = list_public()


def parameters_untold(one, head=frozenset()):
    """Parameters that neither its docstring names nor the ``head`` of its page; X is ``x``."""
    told = {word.lower() for word in re.findall(r"\w+", one.__doc__ or "")} | head
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    taken = inspect.signature(one).parameters.values()
    names = {each.name for each in taken if each.kind not in kinds} - {"self", "cls"}
    return {name for name in names if name.lower() not in told}


def head_of(name):
    """What the head of its page tells of the parameters of a picture or an estimator's method."""
    of_class = PUBLIC.get(name.rpartition(".")[0])
    if inspect.isclass(of_class) and issubclass(of_class, Estimator | Coarse):
        return ESTIMATORS
    return PICTURES if "figure" in name else frozenset()


def raises(one, deeper=True):
    """The errors that are raised in it, and in what it calls of its own module."""
    if inspect.isclass(one):
        made = [vars(one)[name] for name in ("__init__", "__post_init__") if name in vars(one)]
        return set().union(*(raises(each) for each in made if inspect.isfunction(unwrap(each))))
    one = inspect.unwrap(one)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
    except OSError:  # made by dataclass
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.add(ast.unparse(getattr(node.exc, "func", node.exc)))
        if deeper and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = unwrap(one.__globals__.get(node.func.id))
            if inspect.isfunction(called) and called.__module__ == one.__module__:
                found |= raises(called, deeper=False)
    return found


def test_there_is_something_to_look_at():
    assert len(PUBLIC) > 150


@pytest.mark.parametrize(("page", "names"), [("estimators", ESTIMATORS), ("plot", PICTURES)])
def test_the_head_of_the_page_tells(page, names):
    head, _, _ = (ROOT / "docs" / "api" / f"{page}.md").read_text().partition(":::")
    assert {name for name in names if f"`{name}`" not in head and f"`{name}=`" not in head} == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    one = PUBLIC[name]
    assert one.__doc__, "no docstring"
    assert not parameters_untold(one, head_of(name))
    assert not {error for error in raises(one) if error not in one.__doc__}


def takes(x, rate):
    """Keep what ``rate`` says of X."""
    if rate > 1:
        raise ValueError(rate)
    return x


def test_what_is_untold_is_seen():
    """Must fail: an error that is not told, and then a parameter."""
    assert raises(takes) == {"ValueError"} and not parameters_untold(takes)
    assert raises(lambda: takes(0, 1)) == {"ValueError"}
    takes.__doc__ = "Keep some of X."
    assert parameters_untold(takes) == {"rate"}
