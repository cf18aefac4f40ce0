"""The explainer: the story of a tensor, every value and gradient with its reason, as text, JSON and a page."""

from .story import Edge, Step, Story, explain

__all__ = ["Edge", "Step", "Story", "explain"]
