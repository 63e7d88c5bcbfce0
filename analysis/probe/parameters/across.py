"""Accounts that are spread over ranks: each has its own examples' part of the averaged gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.probe.parameters.account import Account
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import UNFORMED, local
from sketchvar.analysis.probe.sums import joined

PARTLY = "it was measured on {} of {} ranks"


def gather_accounts(
    accounts: Mapping[int, Account], parameters: Sequence[Any], weights: Tensor | None, ranks: Ranks
) -> tuple[Mapping[int, Account], Tensor | None]:
    """Accounts by the ids of their ``parameters``, and the ``weights`` of examples, as one process
    with the examples of all ranks would have them. All ranks call it alike.

    ‖g_s‖² and ⟨g_s, G⟩ travel as they are; where the g_s are formed, Σ g_s is summed over ranks. G
    is there: DDP has averaged it; its shards are brought together for one parameter at a time.
    """
    if ranks.size == 1:
        return accounts, weights
    mine = [accounts.get(id(p)) for p in parameters]
    none = local(parameters[0]).new_zeros(0, dtype=torch.float64)
    sent = [none if weights is None else weights.to(none)]
    for account in mine:
        sent += tell(account, none, ranks)
    told = ranks.gather(sent)
    found: dict[int, Account] = {}
    for i, (p, account) in enumerate(zip(parameters, mine, strict=True)):
        squares, facts = ([rank[at] for rank in told] for at in (2 * i + 1, 2 * i + 2))
        ran = sum(map(len, facts)) // 3
        if ran == ranks.size and account is not None:
            found[id(p)] = of_all(account, joined(squares), torch.stack(facts).T, ranks)
        elif account is not None and account.problem is not None:
            found[id(p)] = account
        elif ran or (account is not None and account.passes):
            words = PARTLY.format(ran, ranks.size) if ran else UNFORMED
            found[id(p)] = Account("", p, problem=words)
    complete([account for account in found.values() if account.problem is None], none, ranks)
    whole = joined([rank[0] for rank in told])
    return found, whole if len(whole) else None


def tell(account: Account | None, none: Tensor, ranks: Ranks) -> list[Tensor]:
    """‖g_s‖² of this rank's examples; its share of ‖G‖², whether ⟨g_s, G⟩ can be formed, and
    whether Σ g_s is. Empty where it cannot be read.
    """
    if account is None or not account.passes or account.problem is not None or account.C is None:
        return [none, none]
    C = account.C / ranks.replicas(account.weight)
    can = [float(account.kept is not None), float(account.own is not None)]
    return [account.squares().to(none), torch.cat([C.view(1).to(none), none.new_tensor(can)])]


def of_all(
    account: Account, squares: Float[Tensor, " S"], facts: Float[Tensor, "3 R"], ranks: Ranks
) -> Account:
    """The account of all ranks, with this one's Σ g_s and parts."""
    found = Account(account.name, account.weight, account.exact, passes=account.passes)
    C, can_inner, formed = facts
    found.C, found.example_sq = C.sum(), [squares / ranks.size**2]
    found.G = account.G
    found.kept = account.kept if can_inner.all() else None
    found.own = account.own if formed.all() else None
    return found


def complete(accounts: Sequence[Account], none: Tensor, ranks: Ranks) -> None:
    """Sum Σ g_s over ranks, and gather ⟨g_s, G⟩."""
    owns = [account.own for account in accounts if account.own is not None]
    if owns:
        sums = ranks.sum(torch.cat(owns)) / ranks.size
        mean = iter(sums.split([len(own) for own in owns]))
        for account in accounts:
            account.own = None if account.own is None else next(mean)
    for account in accounts:
        if account.own is not None or account.kept is not None:  # on every rank
            G = account.G
            account.meet(G.full_tensor() if hasattr(G, "placements") else G)
        account.G = None
    inner = [none if account.inner is None else account.inner.to(none) for account in accounts]
    told = ranks.gather(inner) if inner else []
    for account, *each in zip(accounts, *told, strict=True):
        known = sum(map(len, each)) == len(account.squares())
        account.inner = joined(each) / ranks.size if known else None
        if account.gap is not None and account.own is None and account.C is not None:
            apart = None if account.inner is None else 1 - account.inner.sum() / account.C
            account.gap = None if apart is None else apart.abs()
