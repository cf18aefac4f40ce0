"""The small program whose every stage is written down beside it, as `trace.txt` … `llvm.txt`."""

import numpy as np

import chainrule as cr
from chainrule import functional as F

WEIGHT = cr.tensor(np.array([[0.5, -1.0, 0.25], [1.5, 0.0, -0.5]], "float32"), requires_grad=True)
WEIGHT.cell.name = "weight"


def program(x, labels):
    logits = F.linear(F.relu(x), WEIGHT)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    with cr.no_grad():
        WEIGHT.copy_(WEIGHT - 0.5 * WEIGHT.grad)
    WEIGHT.grad = None
    return loss
