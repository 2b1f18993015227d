"""How fast netasync is beside what else there is: `make bench`.

Two processes on loopback, both ends the same library, pinned to one core, so that a figure is the work on the
path and not the waking of another core. All peers in turn within one run, so that what the machine does
meanwhile meets each of them: the ratios carry over to other machines, the absolute values do not.
"""
