"""Timings of losses and operators on this machine, beside other programs.

`run` compares contenders in alternation; `rows` says what is timed, `inputs`
on what, `peers` against whom and `table` how it is told. This package is light
to import, since the peers' process starts from it without jax.
"""
