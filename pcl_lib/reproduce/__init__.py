"""From one command to tables and figures: `python -m pcl_lib.reproduce`.

run              a run folder: its settings, data, trained methods and results
measure          the measurements that notebooks share
beyond           those of notebooks 09 and 10: other attributes than pose, other ways to pose
alignment        images moved so that landmarks meet, and the detectors of others that find landmarks
depth            does depth make pose easier, or identity? as input and as target
longer           what takes longer than a notebook can: a GAN, detectors, depth (`make beyond`)
notebooks        notebooks as programs, executed into stamped copies
runner           runs the notebooks in order and writes summary.json
paper_table      the table in the form of the paper's
doctor           what this machine has, and the minutes to expect on it
readme           measured minutes, written into README and the notebooks' headers
hosted           badges for Colab and Binder and a set-up cell, from the repository's one address
judge            what a model's features tell, and its swaps beside the rendered truth
shipped_weights  trains, probes and writes the weights that come with the kit
shipped_report   tables and a picture of the shipped weights
fairness         scores by skin tone and age, and whom the rendered people are like
handout          a students' copy of the notebooks, without solutions
exercises        the check cells of the notebooks' exercises
"""

from pcl_lib.reproduce.run import Run, open_run

__all__ = ["Run", "open_run"]
