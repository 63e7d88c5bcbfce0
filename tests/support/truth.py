"""Right values that owe nothing to the product: gradients of one example at a time."""

import torch


def variances(model, share, count):
    """Parameter -> variance of its gradient over the draw of ``count`` examples, by as many
    backward passes; ``share(s)`` is what example s adds to the loss of the batch.
    """
    drawn = {}
    for s in range(count):
        model.zero_grad(set_to_none=True)
        share(s).backward()
        for name, p in model.named_parameters():
            grad = torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
            drawn.setdefault(name, []).append(grad.double())
    model.zero_grad(set_to_none=True)
    found = {}
    for name, each in drawn.items():
        g = torch.stack(each)
        found[name] = (count * (g - g.mean(0)).square().sum() / (count - 1)).item()
    return found


def measured(rows):
    """Layer -> minibatch variance at its first measured step."""
    return rows.drop_duplicates("layer").set_index("layer")["minibatch_example"].to_dict()
