"""Charts as SVG inside a page: small, crisp on paper, in the page's colours, light and dark.

Colours are classes (`c-blue`), which templates/charts.css.j2 defines. Nothing here refers to
anything outside the element itself, so that a page stays complete in itself.

svg      elements as escaped text
scales   from values to pixels, ticks, how numbers are written
axes     the frame of a chart: grid, ticks, labels
lines    lines over a common axis, with bands and thresholds
marks    flags, uprights and names on them
heat     rows by columns as colours
stacks   columns or one bar, cut into parts
"""
