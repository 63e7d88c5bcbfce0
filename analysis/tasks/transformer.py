"""Block: what the transformers that are trained from scratch are made of."""

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm self-attention, then a GELU network four times as wide, each added to its input.

    Takes and gives (S × T × width). Every matrix is a plain nn.Linear; those of the attention have
    a ``bias`` or none. Raises ValueError where ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int, causal: bool, bias: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width, got width={width} and heads={heads}")
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias) for _ in range(4)
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm1(h)
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm2(h))))
