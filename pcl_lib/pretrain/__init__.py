"""One pre-training loop for all methods, on Lightning Fabric; also `python -m pcl_lib.pretrain`.

training   `fit`: train a method, or go on where its checkpoint left off
trainer    the loop over an epoch, and the state between epochs
formats    the memory format in which a network trains fastest here, measured once
fabric     processes, precision and devices
"""

from pcl_lib.pretrain.training import Trained, fit

__all__ = ["Trained", "fit"]
