"""Experiments of several configurations and seeds, and their tables.

`study` says what an experiment is, `members` reads what its runs left behind,
`statistics` compares them, `table` and `figures` show them. `fluojax.jobs.sweep`
runs them.
"""

from fluojax.sweep.study import Options, Published, Study

__all__ = ["Options", "Published", "Study"]
