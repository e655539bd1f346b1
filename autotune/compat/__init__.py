"""Compat: try every pair of settings on tiny pipelines, with the installed versions of the libraries.

    python -m autotune.compat

It is for users of other versions of torch and diffusers than those that the rules of the knobs were written for. A pair
that the rules refuse is not run. Every other pair is built and called. Its picture is compared with that of its
reference: the same settings without those that should not change the picture (compilation, layout, another attention
kernel).

Every pair in a config of its own, compiled, takes hours. `--together` tries many pairs in one config, and alone those
that fail there. `--capture` runs graphs as torch.compile captures them: it shows what breaks graphs, not what Inductor
does.

tiny/        the configurations of pipelines with random weights, one folder each; "sd" is the trained demo. The noise
             levels of flux lie close together: with random weights its steps would otherwise differ too much for a
             cache of blocks to reuse any. Its timesteps are in the middle, where caches of attention act
plan.py      the values and pairs, the rules' verdict on them, and the pictures that each check needs
pictures.py  in the child process: draws the pictures of each config in a process of its own
together.py  configs that hold many pairs
judge.py     compares pictures and returns verdicts
record.py    the verdicts as a file: compat-DEVICE.json
checks.py    runs the checks of one pipeline
run.py       runs the checks of all pipelines
table.py     the verdicts in a terminal

The code names no knob. It does not measure speed, and does not use full-size weights.
"""
