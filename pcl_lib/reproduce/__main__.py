"""Command line: python -m pcl_lib.reproduce."""

from pcl_lib.reproduce.runner import main
from pcl_lib.utils import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(main)
