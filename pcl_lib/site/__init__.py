"""The course as a web site that needs neither a kernel nor the network: `python -m pcl_lib.site runs/cpu site`.

pages   from executed notebooks to Sphinx's sources, and from those to pages
strips  sliders without a kernel: pictures of the widgets, drawn beforehand
static/ the style and the script of the strips; demo/ the live widgets as one page, which Voila serves (make demo)
"""
