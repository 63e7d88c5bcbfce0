"""Which layers the code around them never calls, because it reads their weights itself."""

import ast
import inspect
import textwrap
from functools import cache

from torch import nn

ABOUT = {"dtype", "device", "shape", "ndim", "size", "numel", "dim", "requires_grad", "is_cuda"}


def reads_weight(parent: nn.Module, path: str) -> bool:
    """Whether the code of ``parent``, from its forward on, reads ``self.path.weight`` (more than
    its type or shape) and nowhere calls ``self.path``: attention by one function, a fused loss on
    a head.

    Read off the source; False where there is none.
    """
    read, called = uses_of(type(parent))  # type: ignore[arg-type]
    return path in read and path not in called


@cache
def uses_of(kind: type[nn.Module]) -> tuple[set[str], set[str]]:
    """Paths of modules whose weight is read, and paths that are called."""
    read: set[str] = set()
    called: set[str] = set()
    known, queue = {"forward"}, ["forward"]
    while queue:
        tree, me = source_of(getattr(kind, queue.pop(), None))
        nodes = list(ast.walk(tree))
        about = {id(n.value) for n in nodes if isinstance(n, ast.Attribute) and n.attr in ABOUT}
        for node in nodes:
            if isinstance(node, ast.Call):
                path = path_from(node.func, me)
                called.add(path)
                if path not in known and inspect.isfunction(getattr(kind, path, None)):
                    known.add(path)
                    queue.append(path)
            elif (
                isinstance(node, ast.Attribute) and node.attr == "weight" and id(node) not in about
            ):
                read.add(path_from(node.value, me))
    return read - {""}, called


def path_from(node: ast.AST, me: str) -> str:
    """``a.b`` of ``me.a.b``; empty for anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join(reversed(names)) if isinstance(node, ast.Name) and node.id == me else ""


def source_of(function: object) -> tuple[ast.AST, str]:
    """The syntax tree of a method and what it calls itself; empty where it has no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
        return tree, tree.body[0].args.args[0].arg  # type: ignore[attr-defined]
    except (OSError, TypeError, SyntaxError, AttributeError, IndexError):
        return ast.Module([], []), ""
