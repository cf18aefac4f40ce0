"""The explainer: the story of a tensor, every value and gradient with its reason, as text, JSON and a page.

Knows graphs, their values and the contributions that the calculus notes; hooks into nothing, least of all the compiler.
"""

from .story import Edge, Step, Story, explain

__all__ = ["Edge", "Step", "Story", "explain"]
