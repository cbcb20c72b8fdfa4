"""Names for tensor shapes, so that signatures say them and tests can check them.

`*dims` is (channels, height, width) of a latent, or any shape at all in the pure maths.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Latents = Float[Tensor, "batch *dims"]
Knots = Float[Tensor, "knots batch *dims"]
PerStep = Float[Tensor, "steps batch *dims"]
PerSample = Float[Tensor, "batch"]
Steps = Int[Tensor, "batch"]
Images = Float[Tensor, "batch 3 height width"]
GroupValues = Float[Tensor, "groups samples"]
GroupMask = Bool[Tensor, "groups samples"]
PerGroup = Float[Tensor, "groups"]
GroupFlags = Bool[Tensor, "groups"]
SampleMask = Bool[Tensor, "batch"]
