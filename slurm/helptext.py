"""The `--help` texts of the commands over many runs."""

GRID = """usage: secateur grid grid=NAME [KEY=VALUE ...] [--dry-run] [--wait] [--json] [--tasks]

Expand conf/grid/NAME.yaml (or grid=FILE.yaml) to runs, drop what is finished, and do the rest: one gradient pass for
all runs that can share it, one dense baseline per model, the runs, then the reports. Running it again continues.

  launcher=local|slurm   here (the default), or as job arrays on the cluster
  workers=N              here: processes at a time; the default is one per GPU, or one
  slurm=NAME             the cluster: conf/slurm/NAME.yaml or a file; slurm.partition=, slurm.run.time=, ... change it
  out=DIR                folder of the runs (default: runs); grids in one folder share what they can
  foreign=refuse         finished runs of other code: refuse, reuse, or redo (set aside and run again)
  threads=N              CPU threads per run; equal bits need equal threads
  any other KEY=VALUE    holds for every run; for the key of an axis, or for model, it replaces the values: KEY=a,b,c

  --dry-run              only show the plan; with --tasks every command, with --json everything as JSON
  --wait                 stay and show a grid on the cluster until it ends

examples:
  secateur grid grid=tiny_sweep workers=2
  secateur grid grid=taylor_sweep --dry-run
  secateur grid grid=taylor_sweep model=llama3_8b taylor.seq_len=64,128 eval.data_dir=/data/eval out=/shared/runs
  secateur grid grid=taylor_sweep launcher=slurm slurm.partition=gpu slurm.account=me out=/shared/runs --wait"""

STATUS = """usage: secateur status [GRID] [out=DIR] [--json] [--wait]

What of a grid is done, running (with stage and age), queued, failed (and why). GRID is an id or a name; without it the
newest grid of the folder is shown.

examples:
  secateur status
  secateur status taylor_sweep out=/shared/runs --json"""

LOGS = """usage: secateur logs RUN [out=DIR] [lines=N]

The last lines (100) that a run, capture or analysis of a grid has written, over all its attempts. RUN is a part of its
name that fits one task only.

examples:
  secateur logs tiny_llama-blockwise-0.2-16x16
  secateur logs capture-llama3_8b-128 out=/shared/runs lines=1000"""

RETRY = """usage: secateur retry [GRID] [out=DIR] [launcher=local|slurm] [workers=N] [--wait]

Run the failed tasks of a grid again, and what they had blocked. Tasks that were only interrupted are done as well.

examples:
  secateur retry
  secateur retry taylor_sweep out=/shared/runs --wait"""

CANCEL = """usage: secateur cancel [GRID] [out=DIR]

Take everything of a grid out of the queue, or stop the launcher that runs it here. Nothing finished is lost.

examples:
  secateur cancel
  secateur cancel taylor_sweep out=/shared/runs"""
