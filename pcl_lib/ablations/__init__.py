"""Variants of PCL and other methods, several seeds each: `python -m pcl_lib.ablations`.

variants      the rows of the ablation table: a method and a few changed settings
significance  differences of two methods with paired intervals
tables        the tables of the ablations
plots         their figures
power_law     how an error falls with size, with intervals
scaling       what more people, images, iterations and width bring, and their price
clip_search   tries of pcl_video, judged by the rendered truth
scheduling    cells side by side, on this machine or on a Dask cluster, within a time budget
cells         trains and probes one variant with one seed, cell by cell
"""

from pcl_lib.ablations.cells import cells_of, record, shown

__all__ = ["cells_of", "record", "shown"]
