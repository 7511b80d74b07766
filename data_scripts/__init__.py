"""From the official downloads of data sets to prepared folders; data_scripts/README.md lists them."""

import pcl_lib  # noqa: F401 - from here on an interrupt shows no traceback
