"""Published labelled datasets in their own layouts, read one scene or patch at a time.

A dataset is a TOML file here: where its files lie, which bands they hold, what the numbers and the codes
mean, under which licence, and whom to cite. Codes become partial labels by the rules of SEnSeI-v2's Table I
(Francis 2024): what an annotator did not tell apart stays open. Nothing is downloaded.

Examples
--------
>>> from xcloudmask import datasets
>>> datasets.get("sparcs").classes[6]  # flooded: land or water
49
>>> for one in datasets.read("sparcs", "l8cloudmasks"):  # doctest: +SKIP
...     mask = one.image.cloudmask.predict()
"""

from xcloudmask.datasets.declared import Declared, get, names
from xcloudmask.datasets.read import Labelled, read

__all__ = ["Declared", "Labelled", "get", "names", "read"]
