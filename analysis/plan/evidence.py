"""Evidence (a frozen dataclass): the steps that a plan is chosen on and those that are held out,
and what any choice comes to on both.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis.plan.baselines import Single, Uniform
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.objective import SUM, Objective
from sketchvar.analysis.plan.score import score_steps, sum_up
from sketchvar.analysis.plan.totals import Totals, sum_layers


@dataclass(frozen=True, eq=False)
class Evidence:
    """Two tables of ``measure_layers``; ``held_out`` is empty where all that there is was chosen
    on. X is kept in ``dtype``.
    """

    chosen_on: pd.DataFrame
    held_out: pd.DataFrame
    dtype: torch.dtype
    objective: Objective = SUM

    @classmethod
    def split(
        cls,
        measured: pd.DataFrame,
        dtype: torch.dtype,
        objective: Objective = SUM,
        hold_out: Collection[int] | None = None,
    ) -> "Evidence":
        """Hold out these steps, or every second one. Raises ValueError for one that was not
        measured, and where none is left to choose on.
        """
        steps = sorted(map(int, set(measured["step"])))
        out = set(steps[1::2] if hold_out is None else hold_out)
        if not out < set(steps):
            raise ValueError(
                f"steps that are held out must be some of {' '.join(map(str, steps))}, not all, got"
                f" {' '.join(map(str, sorted(out)))}; change --hold-out"
            )
        away = measured["step"].isin(out)
        return cls(measured[~away], measured[away], dtype, objective)

    @property
    def table(self) -> pd.DataFrame:
        """What each layer can take, on the steps that are chosen on."""
        return list_candidates(self.chosen_on, self.objective)

    @property
    def uniform(self) -> Uniform | None:
        """Uniform rows at any rate, on those steps."""
        return Uniform.of(self.chosen_on, self.dtype, self.objective)

    def total(self, plan: pd.DataFrame) -> dict[str, Any]:
        """What a plan (rows of ``table``, one per layer) comes to: bytes, and the total with its
        standard error on the steps that were chosen on and on those held out, and how much ``more``
        it is there, with half the width of its 95 % interval.
        """
        of = sum_layers(plan, self.objective.largest)
        parts = (score_steps(plan, part, self.objective) for part in self.parts)
        return self.write(of, *parts)

    def total_uniform(self, single: Single) -> dict[str, Any]:
        """The same of uniform rows, at a rate that need not have been measured."""
        parts = []
        for part in self.parts:
            uniform = None if part.empty else Uniform.of(part, self.dtype, self.objective)
            rows = part[:0] if uniform is None else uniform.measured(single.rate)
            parts.append(score_steps(rows.drop_duplicates("layer"), rows, self.objective))
        return self.write(single.totals, *parts)

    @property
    def parts(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return self.chosen_on, self.held_out

    @property
    def steps(self) -> tuple[list[int], list[int]]:
        """The steps of both."""
        first, second = (sorted(map(int, set(part["step"]))) for part in self.parts)
        return first, second

    def write(self, of: Totals, inside: pd.DataFrame, outside: pd.DataFrame) -> dict[str, Any]:
        """Totals and scores as a row."""
        chosen, held_out = sum_up(inside, self.objective), sum_up(outside, self.objective)
        more, half = chosen.differ(held_out)
        return {
            "kept_bytes": of.kept_bytes,
            "fraction": of.fraction,
            "ratio": chosen.ratio,
            "ratio_stderr": chosen.stderr,
            "held_out": held_out.ratio,
            "held_out_stderr": held_out.stderr,
            "more": more,
            "more_half": half,
        }

    def by_step(self, plan: pd.DataFrame) -> list[dict[Hashable, Any]]:
        """A row for every step: whether it was ``held_out``, and the plan's score there."""
        parts = [
            score_steps(plan, part, self.objective).assign(held_out=out)
            for part, out in zip(self.parts, (False, True), strict=True)
        ]
        both = pd.concat([part for part in parts if len(part)])
        return both.sort_values("step").to_dict("records")
