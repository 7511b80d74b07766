"""How fast, and with how much memory: `python -m pcl_lib.bench PART`.

timing       a call by the clock, and the most memory it takes
plain        the straightforward forms that the kit is measured against
parts        rendering, views, losses, steps; the list of all parts
choice       memory format, precision and threads: what is taken, the default and the rest
limit        each step's share of what a matrix product reaches
gpu          gpu-check: a GPU against the CPU, and what pays there
probing      the encoder once, and probes by the kit and by scikit-learn
training     iterations, SimCLR by lightly, feeding, operators, sizes
scaling      one and two processes that train as one
preparation  preparing data on the disk, and drawing an epoch from it
start        imports, the first picture and JupyterLab, in new processes
widgets      from a moved slider to the new picture
report       the page figures/benchmarks.md and its plot
"""
