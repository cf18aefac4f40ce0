"""Tools that check derivatives: numerical differentiation with an error bar, and verdicts on every element."""

from .checking import check_grads
from .diagnosis import KINDS
from .report import Element, GradientReport, InputCheck

__all__ = ["KINDS", "Element", "GradientReport", "InputCheck", "check_grads"]
