"""Disentanglement, by linear probes and by pictures.

leakage       which factors a linear probe finds in each feature; DCI and SAP of two features
swaps         whose factors the picture shows that the decoder makes of two people's features
swap_truth    how close that picture comes to the rendered truth
attributes    both questions for any attribute that PCL's recipe is told of by a change
"""

from pcl_lib.disentangle.attributes import FACTORS, attribute_rows, swap_shares
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
    "FACTORS",
    "SWAP_FACTORS",
    "LeakagePlan",
    "PictureReader",
    "SwapModel",
    "attribute_rows",
    "correlation",
    "dci",
    "leakage",
    "leakage_plan",
    "swap_plan",
    "swap_report",
    "swap_shares",
]
