"""Names of optimizers and schedulers that people look for here, each with what to write instead.

Knows names and advice; computes nothing.
"""

from __future__ import annotations

from ..errors import MissingNameError

_WARM_UP = "LinearLR(optimizer, start_factor=0.01, total_iters=steps, interval='step'), in a SequentialLR with the next"

# name → what to write, as the end of "Use …".
ADVICE = {
    **dict.fromkeys(
        ("WarmupLR", "Warmup", "LinearWarmup", "WarmUpLR", "get_linear_schedule_with_warmup",
         "get_cosine_schedule_with_warmup", "get_constant_schedule_with_warmup"), _WARM_UP,
    ),
    "CyclicLR": "OneCycleLR, or LambdaLR with a function of the step",
    "MultiplicativeLR": "LambdaLR with the product as a function of the step",
    "CosineLR": "CosineAnnealingLR(optimizer, T_max=epochs)", "CosineAnnealing": "CosineAnnealingLR",
    "OneCycle": "OneCycleLR", "ReduceOnPlateau": "ReduceLROnPlateau",
    "ReduceLROnPlateu": "ReduceLROnPlateau", "SWALR": "LinearLR or CosineAnnealingLR down to a low rate",
    **dict.fromkeys(("Adadelta", "Adamax", "NAdam", "RAdam", "Adafactor", "Lion", "Muon", "SparseAdam"), "AdamW"),
    **dict.fromkeys(("ASGD", "Rprop", "LBFGS"), "SGD with momentum, or AdamW"),
    "Momentum": "SGD with momentum=0.9", "RMSProp": "RMSprop", "AdaGrad": "Adagrad", "adam": "Adam", "sgd": "SGD",
    "swa_utils": "best weights, which cr.fit restores",
    **{
        name: f"optim.lr_scheduler.{name}"
        for name in ("StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "OneCycleLR", "LambdaLR",
                     "LinearLR", "SequentialLR", "ReduceLROnPlateau")
    },
}  # fmt: skip


def missing(module: str, name: str) -> MissingNameError:
    """The error for a name that a module of this room lacks; with advice if it is one of those above."""
    advice = ADVICE.get(name)
    return MissingNameError(
        f"{module} has no {name!r}. {f'Use {advice}' if advice else f'See dir({module})'}"
    )
