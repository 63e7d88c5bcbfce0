"""Agreement: ranks make sure of each other before they gather, so that none waits for one that will
not come.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sketchvar.analysis.probe.ranks import Ranks

WAIT = timedelta(minutes=10)  # as long as NCCL waits
NUMBERS: Counter[str] = Counter()  # agreements so far, by the name of their group

ALIKE = "make model and Probe alike on every rank, and call step() on each after every update"


class Disagreement(RuntimeError):
    """Ranks are about to do different things, and have all been told so."""


class Agreement:
    """What ranks are about to do goes through the store by which they met, which knows of no order
    and can give up, as a collective cannot.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.count = ranks, 0
        if ranks.group is not None:
            group = ranks.group.group_name
            self.name = f"sketchvar/{group}/{NUMBERS[group]}"
            NUMBERS[group] += 1

    def seek(self, about: Mapping[str, Any]) -> None:
        """Go on once all ranks have said the same, in JSON.

        Raises Disagreement, on every rank, where one says something else, or nothing for ``WAIT``;
        and ever after.
        """
        if self.ranks.group is None:
            return
        from torch.distributed.distributed_c10d import _get_default_store

        store, end = _get_default_store(), f"{self.name}/end"
        if store.check([end]):
            raise Disagreement(store.get(end).decode())
        keys = [f"{self.name}/{self.count}/{rank}" for rank in range(self.ranks.size)]
        mine = keys[self.ranks.number]
        store.set(mine, json.dumps(about))
        try:
            store.wait(keys, WAIT)
        except RuntimeError:
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
            words = f"rank {', '.join(map(str, missing))} did not come to {tell(about)} in {WAIT}"
            store.set(end, f"{words}; {ALIKE}")
            raise Disagreement(store.get(end).decode()) from None
        if difference := compare([json.loads(store.get(key)) for key in keys]):
            store.set(end, f"the ranks disagree about {difference}; {ALIKE}")
            raise Disagreement(store.get(end).decode())
        if self.count:  # which all have read, as they have come here
            store.delete_key(mine.replace(f"/{self.count}/", f"/{self.count - 1}/"))
        self.count += 1


def compare(said: Sequence[Mapping[str, Any]]) -> str:
    """What the first rank that differs from rank 0 differs in; empty where none does."""
    first = said[0]
    for rank, other in enumerate(said):
        for key in {**first, **other}:
            a, b = first.get(key), other.get(key)
            if a == b:
                continue
            if isinstance(a, list) and isinstance(b, list):  # not of all, but of what differs
                a, b = [x for x in a if x not in b] or a, [x for x in b if x not in a] or b
                a, b = a[:3], b[:3]
            return f"{key}: {a} on rank 0, {b} on rank {rank}"
    return ""


def tell(about: Mapping[str, Any]) -> str:
    """In words, but for lists."""
    return ", ".join(f"{key} {a}" for key, a in about.items() if not isinstance(a, list))
