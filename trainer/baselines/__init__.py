"""The methods a run can train by, by the name that the configuration's `method` gives them.

To add one: write a class with the surface of `trainer.tdm_r1.update.FewStep` in a file of this
folder, add its line to METHODS and its name to `trainer.config.tree.Method`.
"""

from trainer.baselines.direct_rl import DirectRl
from trainer.baselines.phi_first import DgpoThenDistil, FrozenSurrogate
from trainer.baselines.tdm import TdmOnly
from trainer.tdm_r1.update import FewStep, TdmR1

METHODS: dict[str, type[FewStep]] = {
    "tdm_r1": TdmR1,
    "tdm_only": TdmOnly,
    "direct_rl": DirectRl,
    "frozen_surrogate": FrozenSurrogate,
    "dgpo_then_distil": DgpoThenDistil,
}
