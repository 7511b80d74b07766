"""Disentanglement, by linear probes and by pictures.

leakage       which factors a linear probe finds in each feature; DCI and SAP of two features
swaps         whose factors the picture shows that the decoder makes of two people's features
swap_truth    how close that picture comes to the rendered truth
"""

from pcl_lib.disentangle.leakage import LeakagePlan, dci, leakage, leakage_plan
from pcl_lib.disentangle.swaps import (
    SWAP_FACTORS,
    PictureReader,
    SwapModel,
    correlation,
    swap_plan,
    swap_report,
)

__all__ = [
    "SWAP_FACTORS",
    "LeakagePlan",
    "PictureReader",
    "SwapModel",
    "correlation",
    "dci",
    "leakage",
    "leakage_plan",
    "swap_plan",
    "swap_report",
]
