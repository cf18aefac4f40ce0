"""Small real tables that ship inside the package, so that a demonstration needs no network."""

from __future__ import annotations

import difflib
from importlib import resources

from .facts import Fault, fault
from .reading import Table, read_table

BUNDLED = ("iris",)


def bundled(name: str = "iris") -> Table:
    """A table of the package, read by `read_table` like any file.

    - `iris`: 150 flowers of three species of iris with the lengths and widths of sepals and petals in centimetres;
      target `species`. R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics
      7 (1936); measured by E. Anderson; from the UCI Machine Learning Repository by way of scikit-learn, which
      corrected two rows of the repository's copy to Fisher's paper.

    Raises DataError for another name.

    >>> bundled("iris").frame.columns.tolist()
    ['sepal_length_cm', 'sepal_width_cm', 'petal_length_cm', 'petal_width_cm', 'species']
    """
    if name not in BUNDLED:
        close = difflib.get_close_matches(name, BUNDLED, n=1)
        advice = Fault("did_you_mean", {"names": repr(close[0])}) if close else Fault("name_a_table", {})
        raise fault("no_bundled_table", known=", ".join(BUNDLED), name=repr(name), advice=advice)
    # The package may lie in an archive; then this makes a real file for as long as it is read.
    with resources.as_file(resources.files(__package__).joinpath(f"{name}.csv")) as path:
        return read_table(path)
