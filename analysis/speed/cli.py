"""`secateur analyze report=models|setting`: read the words, load, write."""

from pathlib import Path
from typing import TYPE_CHECKING

from secateur.analysis.words import Words
from secateur.pruning.errors import ConfigError

if TYPE_CHECKING:
    from secateur.analysis.speed.measurements import Speeds

KEYS = ("report", "runs", "llama_bench", "csv", "mapping", "setting", "out", "lang", "plots")
REPORTS = ("models", "setting")


def analyze_speed(words: Words) -> None:
    """Write one of the speed reports.

    Raises:
        ConfigError: A word is missing, given twice or not allowed.
        DataError: A source is missing or malformed.
    """
    report = words.one("report", "", REPORTS)
    out, lang = Path(words.one("out", "reports")), words.one("lang", "en", ("en", "zh"))
    plots = words.one("plots", "yes", ("yes", "no")) == "yes"
    setting = words.one("setting", "")
    if (report == "setting") != bool(setting):
        raise ConfigError("report=setting needs setting=KEY, and only it takes one; --help shows examples.")
    speeds = _load(words)

    from secateur.analysis.speed.compare import find_setting
    from secateur.analysis.speed.report import write_models_report, write_setting_report

    if report == "models":
        paths = write_models_report(speeds, out, lang, plots=plots)
    else:
        paths = write_setting_report(speeds, find_setting(speeds, setting), out, lang, plots=plots)
    print(f"{len(paths)} files; open {paths[0]}")


def _load(words: Words) -> "Speeds":
    from secateur.analysis.speed.folders import load_benches
    from secateur.analysis.speed.importers import load_llama_bench
    from secateur.analysis.speed.mapping import load_speed_csv, read_speed_mapping
    from secateur.analysis.speed.measurements import join

    sources = {
        key: [Path(name) for name in words.values.get(key, [])] for key in ("runs", "llama_bench", "csv")
    }
    if not any(sources.values()):
        raise ConfigError("give at least one runs=DIR, llama_bench=FILE or csv=FILE; --help shows examples.")
    parts = [load_benches(path) for path in sources["runs"]]
    parts += [load_llama_bench(path) for path in sources["llama_bench"]]
    if sources["csv"]:
        given = words.one("mapping", "")
        if not given:
            raise ConfigError("csv=FILE needs mapping=FILE.yaml here: which column is which (docs/speed.md)")
        mapping = read_speed_mapping(Path(given))
        parts += [load_speed_csv(path, mapping) for path in sources["csv"]]
    return join(parts)
