"""The parts of the training report, each from evidence to what the template shows.

findings   what was found, numbered as everywhere on the page
curves     losses, learning rate, metrics
health     layers by steps
times      where the time went
machine    the machine over time
recorded   what was recorded; images whose labels may be wrong
costs      operators, and what the profiler's advice would save
"""
