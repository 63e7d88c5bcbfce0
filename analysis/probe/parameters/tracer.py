"""Tracer: runs a module with its parameters traced, and takes their gradients by example."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sketchvar.analysis.probe.parameters.account import Account, Parts
from sketchvar.analysis.probe.parameters.follow import follow, let_go, number
from sketchvar.analysis.probe.parameters.functions import BROADCAST, EXPAND, PICK, name_of
from sketchvar.analysis.probe.parameters.origin import ROWS, Root, Shared, sum_rows
from sketchvar.analysis.probe.parameters.replay import UNKNOWN, replay
from sketchvar.analysis.probe.parameters.rules import RULES
from sketchvar.analysis.probe.parameters.traced import Traced, plain, tensors_in, traced_in
from sketchvar.analysis.probe.sight import expect_end, quietly, save
from sketchvar.analysis.probe.step import TWICE, Step
from sketchvar.analysis.probe.units import Dimension, Unit


class Tracer:
    """Of one step, for a ledger's accounts. What it cannot read is the problem of an account."""

    def __init__(self, ledger: Any, step: Step) -> None:
        self.ledger, self.step = ledger, step

    def run(
        self, module: nn.Module, places: Sequence[tuple[nn.Module, str]], plainly: Any, args: Any,
        kwargs: Any,
    ) -> Any:  # fmt: skip
        """Do what ``plainly(module, *args, **kwargs)`` does, the parameters at these places, of the
        module or of its children, traced.
        """
        own: list[Any] = [owner._parameters[key] for owner, key in places]
        several = (o is module and p.ndim > 2 for (o, _), p in zip(places, own, strict=True))
        if any(several) and not is_of_torch(module):
            args = tuple(number(self, each) for each in args)
            kwargs = {key: number(self, each) for key, each in kwargs.items()}
        try:
            for (owner, key), p in zip(places, own, strict=True):
                owner._parameters[key] = self.trace(p)
            out = plainly(module, *args, **kwargs)
        finally:
            for (owner, key), p in zip(places, own, strict=True):
                owner._parameters[key] = p
        return tuple(map(let_go, out)) if type(out) is tuple else let_go(out)

    def trace(self, p: Any) -> Any:
        """A parameter as a traced tensor."""
        account = self.ledger.account(self.step, p)
        held = p.as_subclass(Tensor)  # a node of its own, which passes on sparse gradients
        root = Root(held, account, lambda g: self.parts(account).add(g))
        return Traced.of(held, Shared(self, (root,), whole=True, slots=p.ndim > 2))

    def parts(self, account: Account) -> Parts:
        """What is told of a parameter in the pass that goes on."""
        return account.open(torch._C._current_graph_task_id())

    def unit(self, leading: torch.Size) -> Unit | None:
        """How rows of these dimensions divide into examples, None where that is not known."""
        return self.ledger.unit(leading)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a function that was given traced tensors; nothing in it is traced by itself."""
        shared = [t for t in traced_in(args, kwargs) if isinstance(t.origin, Shared)]
        if not shared:
            return follow(self, func, args, kwargs)
        rule = RULES.get(func)
        if rule is not None:
            found = rule(self, *args, **kwargs)
            if found is not NotImplemented:
                return found
        tensors = tensors_in([*args, *kwargs.values()])
        others = [t for t in tensors if not any(t is each for each in shared)]
        name, mixes = name_of(func), any(map(is_activation, others))
        if name in BROADCAST:
            shape = torch.broadcast_shapes(*(t.shape for t in tensors))
            return self.broadcast(func, args, kwargs, shared, shape, mixes)
        if name in PICK or not any(self.has_examples(t) for t in others):
            out = func(*args, **kwargs)
            if mixes:
                for t in shared:
                    self.fail(t, UNKNOWN.format(name))
                return out
            if name in EXPAND and self.has_examples(out):
                return self.copy(out, shared[0])
            return self.made_of(out, shared, func, args)
        return replay(self, func, args, kwargs, shared)

    def has_examples(self, t: Tensor) -> bool:
        """Whether a tensor that is not made of parameters alone looks as if its first dimensions
        counted examples.
        """
        if isinstance(t, nn.Parameter) or t.ndim == 0:
            return False
        leading = t.shape[:-1] if t.ndim > 1 else t.shape
        return self.unit(leading) is not None

    def made_of(self, out: Any, shared: Sequence[Any], func: Any, args: Any) -> Any:
        """An output, or each of several, as made of these parameters alone."""
        if isinstance(out, tuple | list):
            return type(out)(self.made_of(each, shared, func, args) for each in out)
        if not isinstance(out, Tensor) or not out.requires_grad:
            return out
        roots = tuple({id(r): r for t in shared for r in t.origin.roots}.values())
        first, name = shared[0].origin, name_of(func)
        origin = Shared(self, roots)
        if len(shared) == 1 and first.slots and args[0] is shared[0]:
            if name == "__getitem__" and is_slot(args[1]):
                origin = Shared(self, roots, slot=args[1], turned=first.turned)
            elif turns(name, args):
                origin = Shared(self, roots, slots=True, turned=not first.turned)
        elif len(shared) == 1 and first.slot is not None and turns(name, args):
            origin = Shared(self, roots, slot=first.slot, turned=not first.turned)
        return Traced.of(out, origin)

    def broadcast(
        self, func: Any, args: Any, kwargs: Any, shared: Sequence[Any], shape: torch.Size,
        mixes: bool,
    ) -> Any:  # fmt: skip
        """Run arithmetic, with a copy of what is the same for all examples for each of them, if it
        ``mixes`` them.
        """
        leading = shape[:-1] if len(shape) > 1 else shape
        unit = self.unit(leading)
        copies: dict[int, Tensor] = {}
        for t in shared if unit is not None else ():
            ahead = len(shape) - t.ndim
            if isinstance(unit, Dimension) and unit.number == 0:
                if ahead or (t.shape[0] == 1 and shape[0] > 1):
                    tail = t.shape if ahead else t.shape[1:]
                    ones = [1] * (len(shape) - 1 - len(tail))
                    copy = plain(t).reshape(1, *ones, *tail).expand(shape[0], *ones, *tail)
                    copies[id(t)] = copy
                    self.read(copy, t.origin.roots, self.for_copies(t))
            elif unit is not None and t.ndim == 1 and len(shape) > 1:
                copies[id(t)] = copy = plain(t).expand(shape)
                self.read(copy, t.origin.roots, self.for_rows(t, unit))
        for t in shared if mixes else ():
            if id(t) not in copies:
                self.fail(t, ROWS.format(tuple(shape)))
        if copies or mixes:
            return func(*put(args, copies), **put(kwargs, copies))
        return self.made_of(func(*args, **kwargs), shared, func, args)

    def copy(self, out: Tensor, t: Any) -> Tensor:
        """An output that holds a copy for each example."""
        self.read(out, t.origin.roots, self.for_copies(t))
        return out

    def for_copies(self, t: Any) -> Callable[[Tensor], None]:
        """What takes the gradients of copies, one for each example."""

        def take(g: Tensor) -> None:
            ahead = (1,) * (g.ndim - 1 - t.ndim) if g.ndim > t.ndim else ()
            shape = (*ahead, *t.shape) if g.ndim > t.ndim else t.shape[1:]
            for i, size in enumerate(shape, start=1):
                if size == 1 and g.shape[i] > 1:
                    g = g.sum(i, keepdim=True)
            t.origin.pull_back(t, g.reshape(len(g), *t.shape))

        return take

    def for_rows(self, t: Any, unit: Unit) -> Callable[[Tensor], None]:
        """What takes the gradients of copies, one for each row."""
        return lambda g: t.origin.pull_back(t, sum_rows(unit, g))

    def read(self, out: Tensor, roots: Sequence[Root], take: Callable[[Tensor], None]) -> Tensor:
        """Have ``take`` given the gradient of an output; returns what has to go on in its place."""
        if not out.requires_grad or out.grad_fn is None:
            return out
        step, ends, seen, number = self.step, self.ledger.ends, [], out.output_nr

        def met(gradients: Sequence[Any]) -> None:
            y = gradients[number]
            if y is None:
                return
            try:
                nodes = [root.tensor.grad_fn for root in roots]
                run = torch._C._will_engine_execute_node
                if not step.open or not any(run(node) for node in nodes if node is not None):
                    return
                expect_end(step, torch._C._current_graph_task_id(), ends)
                ends.rescale(step)
                with quietly(y.device.type):
                    take(y)
                seen.append(1)
                if len(seen) > 1:
                    raise_in(roots, TWICE)
            except Exception as error:
                words = " ".join(str(error).split())
                raise_in(roots, f"the probe could not read it: {type(error).__name__}: {words}")

        # of the node, not of the output, whose hooks run before: FSDP's brings the parameters back
        out.grad_fn.register_prehook(met)
        return out

    def keep(self, x: Tensor) -> Callable[[], Tensor]:
        """Hold a tensor as autograd holds what it saves, until the gradient comes."""
        node = save(self.ledger.anchor, plain(x))
        return lambda: node.saved_tensors[0]

    def fail(self, t: Any, problem: str) -> None:
        """Say why the parameters in a traced tensor cannot be read."""
        raise_in(t.origin.roots, problem)


def raise_in(roots: Sequence[Root], problem: str) -> None:
    """Set the problem of the parameters."""
    for root in roots:
        root.account.problem = root.account.problem or problem


def is_activation(t: Tensor) -> bool:
    """Whether a tensor that is not made of parameters alone depends on some."""
    return t.requires_grad and not isinstance(t, nn.Parameter)


def put(values: Any, copies: dict[int, Tensor]) -> Any:
    """The same arguments with copies in place of what they are of."""
    if isinstance(values, dict):
        return {key: put(each, copies) for key, each in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(put(each, copies) for each in values)
    return copies.get(id(values), values)


def is_of_torch(module: nn.Module) -> bool:
    """Whether a module's forward is torch's own."""
    kind = next(each for each in type(module).__mro__ if "forward" in vars(each))
    return kind.__module__.startswith("torch.nn")


def is_slot(index: Any) -> bool:
    """Whether an index picks one of several."""
    return isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0)


def turns(name: str, args: Any) -> bool:
    """Whether a function exchanges the last two dimensions."""
    if name in ("mT", "T", "t", "__get__"):
        return False
    return name == "transpose" and {d % args[0].ndim for d in args[1:3]} == {
        args[0].ndim - 1,
        args[0].ndim - 2,
    }
