"""GroupedRows: sampling rows without replacement with probabilities of one's own."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.sampling import ImportanceRows, match_rows, normalize


@dataclass(frozen=True, eq=False)
class GroupedRows(ImportanceRows):
    """Keeps k = rate · n rows, one from each of k random groups of sizes equal up to one, row i of
    a group g with probability πᵢ/P_g and weight P_g/πᵢ, P_g = Σ_{j∈g} πⱼ; πᵢ ∝ ‖xᵢ‖sᵢ. With
    ``replacement`` k independent ones.

    ``scores`` (n) are positive, ValueError otherwise; without them πᵢ ∝ ‖xᵢ‖, which is
    ``NormRows``. Scores that may be zero need the floor of ``ScoredRows``.
    Variance: f (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C), f = (ΣN_g² − n)/(n(n − 1)) for groups of N_g rows. Bytes and
    time as ``NormRows``. Made with one device synchronisation where there are scores.
    Source: Rao, Hartley, Cochran 1962, https://doi.org/10.1111/j.2517-6161.1962.tb00471.x.
    """

    scores: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scores is not None and not bool((self.scores > 0).all()):
            raise ValueError(
                f"GroupedRows needs scores > 0, got a least of {self.scores.min().item():g}; rows"
                " without a score need a floor, as in ScoredRows(rate, scores, floor=0.1)"
            )

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        if self.scores is None:
            return normalize(norms)
        return normalize(norms * match_rows(self, self.scores, norms))
