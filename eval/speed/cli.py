"""`secateur bench`: parse, validate, call; nothing else."""

import yaml

from secateur.eval.cli import offline, usage
from secateur.eval.speed.config import settings, subject
from secateur.eval.speed.subjects import variants
from secateur.pruning.compose import options
from secateur.pruning.errors import ConfigError
from secateur.pruning.logs import configure_logging

HELP = """secateur bench: how fast models read a prompt (prefill) and write tokens (decode), and in how much memory

usage: secateur bench [model=A,B] [run=ID] [checkpoint=DIR] [KEY=V1,V2 ...] [--cfg] [--dry-run] [-v]

groups:  model={models}
         bench={benches}      method={methods}
values:  bench.n_prompt=[64,256]  bench.n_gen=[32]  bench.batch=[1,max]  bench.repetitions=5  bench.threads=2
         bench.cache=dynamic|static  bench.compile=off|default  bench.mmap=true  bench.load_repetitions=0
         model.dtype=float32  model.attention=sdpa|eager  budget.ratio=0  guard.round_to=1  out=runs

Several values of a key are compared: every combination is measured, all of them together in random order. A pruned
model brings its dense one along (bench.baseline=false: not). An interrupted benchmark continues when it is called
again; `secateur analyze report=models|setting runs=OUT` makes the reports.

examples:
  secateur bench model=tiny_llama,tiny_qwen2 bench=quick
  secateur bench model=tiny_llama bench=quick bench.threads=1,2
  secateur bench model=tiny_llama budget.ratio=0.2,0.5 method.allocation=uniform bench=serving
  secateur bench run=RUN_ID bench.batch=[1,max]
"""


def bench(argv: list[str]) -> int:
    """Measure all settings that the words ask for; 0 when every cell was measured."""
    if (code := usage(argv)) is not None:
        names = {f"{g}s": ", ".join(options(g)) for g in ("model", "method")}
        print(HELP.format(**names, benches=", ".join(options("bench"))))
        return code
    flags = {word for word in argv if word in {"--cfg", "--dry-run", "-v", "--verbose"}}
    words = [word for word in argv if word not in flags]
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; see --help")
    configs, swept = variants(words)
    if "--cfg" in flags:
        text = [config.model_dump(mode="json", exclude={"eval"}) for config in configs]
        print(yaml.safe_dump_all(text, sort_keys=False, allow_unicode=True))
        return 0
    configure_logging("-v" in flags or "--verbose" in flags)
    for config in configs:
        offline(config)
    from secateur.eval.speed.asked import plan_sweep, sweep_folder
    from secateur.eval.speed.sweep import run_sweep
    from secateur.eval.speed.table import print_sweep

    sweep, folder = plan_sweep(configs, swept), sweep_folder(configs)
    if "--dry-run" in flags:
        for config, variant in zip(configs, sweep.variants, strict=True):
            flat = settings(config)
            told = " ".join(f"{key}={flat[key]}" for key in swept if key in flat)
            print(f"{subject(config)} {told}: {len(variant.cells)} cells x {sweep.repetitions}")
        print(f"into {folder}")
        return 0
    entries = run_sweep(configs, sweep, folder)
    print_sweep(sweep, entries, folder)
    failed = [entry for entry in entries if entry.kind == "failed"]
    for entry in failed:
        print(f"not measured: {sweep.variants[entry.variant].subject}, {entry.cell}: {entry.reason}")
    return 1 if failed else 0
