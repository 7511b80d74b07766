"""From one command to tables and figures: `python -m pcl_lib.reproduce`.

run              a run folder: its settings, data, trained methods and results
measure          the measurements that notebooks share
notebooks        notebooks as programs, executed into stamped copies
runner           runs the notebooks in order and writes summary.json
paper_table      the table in the form of the paper's
doctor           what this machine has, and the minutes to expect on it
readme           measured minutes, written into README and the notebooks' headers
shipped_weights  trains, probes and writes the weights that come with the kit
fairness         scores by skin tone and age, and whom the rendered people are like
handout          a students' copy of the notebooks, without solutions
exercises        the check cells of the notebooks' exercises
"""

from pcl_lib.reproduce.run import Run, open_run

__all__ = ["Run", "open_run"]
