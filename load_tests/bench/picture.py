"""The run as a picture: requests a second of every case, in one panel for each number of ids."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from load_tests.bench.burst import Burst
from load_tests.bench.cases import SIZES, Case
from load_tests.bench.openloop.latency import Curve
from load_tests.bench.report import Report, median, rate_in_words

_OURS: Final = "#c2410c"
_FLOOR: Final = "#94a3b8"
_PEER: Final = "#475569"
_GREY: Final = "#64748b"
_MARGIN: Final = 0.12  # inches
_BAR: Final = 0.3  # inches
_WIDTH: Final = 10.0  # inches
_CURVE: Final = 9  # bars high


def draw(report: Report, file: Path) -> None:
    """Writes the picture; its kind is that of the file's name."""
    sizes = [(count, bars) for count in SIZES if (bars := _bars(report, count))]
    curves = report.more.curves
    lengths = [*(len(bars) for _, bars in sizes), *(_CURVE for _ in curves)]
    height = _BAR * sum(lengths) + 1.9
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=_MARGIN, h_pad=_MARGIN)
    panels = figure.subplots(len(lengths), 1, squeeze=False, height_ratios=lengths)[:, 0]
    for panel, (count, bars) in zip(panels, sizes, strict=False):
        _draw_panel(panel, count, bars)
    for panel, curve in zip(panels[len(sizes) :], curves, strict=True):
        _draw_curve(panel, curve)
    figure.suptitle("Requests per second, one core for the server", fontsize=13, fontweight="bold")
    figure.supxlabel(_caption(report), fontsize=7.5, color=_GREY)
    figure.savefig(file, dpi=160)


def _bars(report: Report, count: int) -> list[tuple[Case, float]]:
    """The fastest comes first."""
    cases = [(case, report.run.good(case)) for case in report.run.rounds if case.count == count]
    bars = [(case, median(bursts, _rate)) for case, bursts in cases if bursts]
    return sorted(bars, key=lambda bar: -bar[1])


def _rate(burst: Burst) -> float:
    return burst.rate


def _draw_panel(panel: Any, count: int, bars: Sequence[tuple[Case, float]]) -> None:  # noqa: ANN401  (an optional type)
    rates = [rate for _, rate in bars]
    drawn = panel.barh(range(len(bars)), rates, color=[_color(case) for case, _ in bars], height=0.72)
    panel.bar_label(drawn, [rate_in_words(rate) for rate in rates], padding=4, fontsize=8.5)
    panel.set_yticks(range(len(bars)), [_label(case) for case, _ in bars], fontsize=9)
    for text, (case, _) in zip(panel.get_yticklabels(), bars, strict=True):
        text.set(color=_OURS if _is_ours(case) else _PEER, fontweight="bold" if _is_ours(case) else "normal")
    panel.set_title(f"{count:,} ids of 128 float32", loc="left", fontsize=10.5)
    panel.invert_yaxis()
    _draw_axis(panel, rates)


def _draw_curve(panel: Any, curve: Curve) -> None:  # noqa: ANN401
    rates = [point.rate for point in curve.points]
    shades = {"p50": "#fdba74", "p99": _OURS, "p99.9": "#7c2d12"}
    times = {
        "p50": [point.p50 for point in curve.points],
        "p99": [point.p99 for point in curve.points],
        "p99.9": [point.p999 for point in curve.points],
    }
    for name, seconds in times.items():
        panel.plot(rates, [each * 1e3 for each in seconds], marker="o", markersize=3, color=shades[name], label=name)
    panel.set_title(f"Milliseconds against requests per second that arrive: {curve.what}", loc="left", fontsize=10.5)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.grid(color="#e2e8f0", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(axis="both", which="both", length=0, labelsize=8, labelcolor=_GREY)
    panel.legend(frameon=False, fontsize=8.5, loc="upper left")
    panel.spines[:].set_visible(False)


def _draw_axis(panel: Any, rates: Sequence[float]) -> None:  # noqa: ANN401
    panel.set_xscale("log")
    panel.set_xlim(min(rates) / 2.5, max(rates) * 2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.grid(axis="x", color="#e2e8f0", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(axis="both", which="both", length=0)
    panel.tick_params(axis="x", labelsize=8, labelcolor=_GREY)
    panel.spines[:].set_visible(False)


def _label(case: Case) -> str:
    uniform = ", uniform" if case.ids == "uniform" else ""
    return f"{case.peer.removesuffix(' without cache')} · {case.variant}{uniform}"


def _is_ours(case: Case) -> bool:
    return case.peer.startswith("ours")


def _color(case: Case) -> str:
    if _is_ours(case):
        return _OURS
    return _FLOOR if case.peer == "floor" else _PEER


def _caption(report: Report) -> str:
    machine = report.machine
    text = (
        f"{report.date}, {machine['processor']}, {machine['cores']} cores; the load generator has a core of its own, "
        f"{report.rounds} rounds of {report.seconds} s, medians; logarithmic axis. Ids are Zipf-distributed "
        "unless uniform. The floor is uvicorn with a constant body of the same size."
    )
    return "\n".join(textwrap.wrap(text, 150))
