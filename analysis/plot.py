"""The public pictures: rows in, Axes out, in a style that holds within the call only.

    from sketchvar import plot

    plot.ratio_by_layer(probe.rows(), rate=0.1)
    plot.ratio_by_layer(rows, ax=ax, layers="*.query", labels={"countsketch": "ours"})
    plot.save(plot.ratio_by_layer(rows, size="column"), "figure", ["pdf", "svg"])

Each draws a table as it is written: of a run (``ratio_…``, ``alpha_…``, ``closed_form_and_draws``,
``noise_scale``), of costs and forks, of a frontier, a plan, of redrawn minibatches, of training, of
benches, of a pair (``ratio_by_bytes``, ``matrices``, ``error_distribution``). Rows of several runs
make a panel for each. Nothing of torch is loaded.
"""

from sketchvar.analysis.bench.figures import layer_times, peak_memory
from sketchvar.analysis.cost.across_figures import (
    coherence_across,
    cost_across,
    effective_batches_across,
)
from sketchvar.analysis.cost.figures import (
    cost_and_bytes,
    cost_and_variance,
    cost_by_horizon,
    cost_by_layer,
    cost_through_training,
)
from sketchvar.analysis.cost.fork_figures import (
    coherence_of_noise,
    effective_batches_and_predictions,
)
from sketchvar.analysis.cost.frontier_figures import cost_frontier
from sketchvar.analysis.explore.figures import error_distribution, matrices, ratio_by_bytes
from sketchvar.analysis.frontier.across_figures import frontiers_across
from sketchvar.analysis.frontier.figure import frontier
from sketchvar.analysis.noise.figures import (
    alpha_through_training,
    closed_form_and_draws,
    ratio_by_layer,
    ratio_through_training,
)
from sketchvar.analysis.noise.kinds_figures import noise_by_kind
from sketchvar.analysis.noise.scale_figures import noise_scale_through_training
from sketchvar.analysis.plan.figure import ratio_by_memory
from sketchvar.analysis.style import paper_style, save
from sketchvar.analysis.sweep.across_figures import losses_across
from sketchvar.analysis.sweep.figures import final_losses, total_ratio, validation_curves
from sketchvar.analysis.truth.figure import closed_forms_and_truth

__all__ = [
    "alpha_through_training",
    "closed_form_and_draws",
    "closed_forms_and_truth",
    "coherence_across",
    "coherence_of_noise",
    "cost_across",
    "cost_and_bytes",
    "cost_and_variance",
    "cost_by_horizon",
    "cost_by_layer",
    "cost_frontier",
    "cost_through_training",
    "effective_batches_across",
    "effective_batches_and_predictions",
    "error_distribution",
    "final_losses",
    "frontier",
    "frontiers_across",
    "layer_times",
    "losses_across",
    "matrices",
    "noise_by_kind",
    "noise_scale_through_training",
    "paper_style",
    "peak_memory",
    "ratio_by_bytes",
    "ratio_by_layer",
    "ratio_by_memory",
    "ratio_through_training",
    "save",
    "total_ratio",
    "validation_curves",
]
