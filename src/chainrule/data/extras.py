"""The one place where this room loads pandas, scikit-learn, charset-normalizer and Pillow, on first use.

They are the optional extras `tabular` and `images`, so that `import chainrule` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError

_NEEDS = {
    "tabular": "reading tables needs pandas and scikit-learn",
    "images": "reading image files needs Pillow",
}


def load(module: str, extra: str = "tabular") -> Any:
    """The module `module` of an extra.

    Raises MissingExtraError, which names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{_NEEDS[extra]}: pip install 'chainrule[{extra}]'") from error
