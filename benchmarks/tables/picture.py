"""From a result to the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables.statistics import Estimate, estimate
from benchmarks.tables.summary import Line, epoch_times, summarize

COLOURS = {"pytorch": "#d1603d", "ours": "#2f6f9f", "peers": "#7a9e48", "ceilings": "#9a9a9a"}


def save(result: Mapping[str, Any], path: Path) -> None:
    """Bars of images a second with their intervals; beside them the scaling where it was measured.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib.figure

    series, lines = scaling_series(result), reversed(summarize(result).lines)
    rates = [(line, rate) for line in lines if (rate := line.images_per_second)]
    size = (8 + 3.5 * len(series), 1.6 + 0.36 * max(len(rates), 8 if series else 0))
    figure = matplotlib.figure.Figure(size, layout="constrained")
    bars, *panels = figure.subplots(1, 1 + len(series), squeeze=False)[0]
    _draw_rates(bars, rates)
    colours = {row["name"]: COLOURS[row["family"]] for row in result["rows"]}
    for panel, (key, found) in zip(panels, series.items(), strict=True):
        _draw_scaling(panel, key, found, colours)
    machine = result["machine"]
    what = f"{machine['dataset']}, batches of {result['settings']['config']['batch_size']}"
    where = f"{machine['device']}, {machine['cores']} cores"
    figure.suptitle(f"{what}, on {where}", fontsize=10)
    figure.savefig(path, dpi=130)


def _draw_rates(panel: Any, rates: Sequence[tuple[Line, Estimate]]) -> None:
    longest = max((rate.high for _, rate in rates), default=1)
    names = []
    for place, (line, rate) in enumerate(rates):
        is_invalid = line.status == "invalid"
        panel.barh(
            place,
            rate.value,
            color=COLOURS[line.family],
            alpha=1 if line.kind == "headline" else 0.55,
            hatch="xx" if is_invalid else None,
            xerr=[[rate.value - rate.low], [rate.high - rate.value]],
            error_kw={"lw": 1, "capsize": 2},
        )
        text = f"{rate.value / 1e3:,.0f}k" + ("  INVALID" if is_invalid else "")
        panel.text(rate.high + longest / 80, place, text, va="center", fontsize=8)
        names.append(f"{line.label}{' *' if line.kind == 'labelled' else ''}  {line.name}")
    panel.set_yticks(range(len(rates)), names, fontsize=8)
    panel.set_xlim(0, 1.14 * longest)
    panel.set_xlabel("training images a second (pale: not the headline rule)")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1e3:,.0f}k")
    panel.spines[["top", "right"]].set_visible(False)


def scaling_series(result: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[int, Estimate]]]]:
    """`{"batch_size": {"J2": [(16, images/s), ...]}, "models": ...}`."""
    found: dict[str, dict[str, list[tuple[int, Estimate]]]] = {}
    n = result["machine"]["images"]
    for point in result.get("scaling", ()):
        for row in point["rows"]:
            rates = [n / seconds for seconds in epoch_times(row).values()]
            if rates:
                line = found.setdefault(point["key"], {}).setdefault(row["name"], [])
                line.append((point["value"], estimate(rates)))
    return found


def _draw_scaling(
    panel: Any,
    key: str,
    lines: Mapping[str, list[tuple[int, Estimate]]],
    colours: Mapping[str, str],
) -> None:
    for name, points in lines.items():
        colour = colours[name]
        values, rates = [value for value, _ in points], [rate for _, rate in points]
        panel.plot(values, [rate.value for rate in rates], "o-", color=colour, label=name, ms=4)
        low, high = [rate.low for rate in rates], [rate.high for rate in rates]
        panel.fill_between(values, low, high, color=colour, alpha=0.2, lw=0)
    panel.set_xscale("log", base=2)
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda y, _: f"{y / 1e3:,.0f}k")
    panel.set_xlabel({"batch_size": "images a batch", "models": "models at once"}[key])
    panel.set_ylabel("images a second")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    panel.grid(alpha=0.3, which="both")
    panel.legend()
