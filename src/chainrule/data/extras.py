"""The one place where this room loads pandas, scikit-learn and charset-normalizer, on first use.

They are the optional extra `tabular`, so that `import chainrule` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError


def load(module: str) -> Any:
    """The module `module` of the extra `tabular`.

    Raises MissingExtraError, which names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = "reading tables needs pandas and scikit-learn: pip install 'chainrule[tabular]'"
        raise MissingExtraError(message) from error
