"""Which settings go together with the libraries that are installed? Every pair of values, on tiny pipelines.

    python -m autotune.compat

For whoever has other versions of torch and diffusers than those that the rules of the knobs were written with. A pair
that the rules refuse is not run; any other is built and called, and its picture is compared with the picture of the
same settings without those that should change nothing (compilation, layout, another attention kernel).

tiny/        configurations of pipelines with random weights, one folder each; the trained demo is "sd". The transformer
             of random numbers takes each step for another world: flux's noise levels lie close together, so that a
             cache of blocks finds something to reuse
plan.py      which values and pairs there are, what the rules say of them, and which pictures judge them
pictures.py  in the child: configs -> pictures, each in a process of its own
judge.py     pictures -> verdicts
record.py    the verdicts as a file: compat-DEVICE.json
checks.py    the checks of one pipeline, from the first to the last
run.py       the story of a run
table.py     the verdicts in a terminal

It knows no knob by name. What it does not tell: speed, and what becomes of full-size weights.
"""
