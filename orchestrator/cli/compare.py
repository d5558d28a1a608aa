"""`wdmoe compare`: compare two runs on the prompts that both have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import common
from orchestrator.errors import cut
from orchestrator.files.text_file import user_path

if TYPE_CHECKING:
    from orchestrator.results.compare import Comparison, Scores, Times
    from orchestrator.results.statistics import Estimate

SHOWN_CHARACTERS = 40

Folder = Annotated[
    Path, typer.Argument(parser=user_path, help="The folder of a run, or of one run of a sweep.")
]


def compare(dir_a: Folder, dir_b: Folder, as_json: common.Json = False) -> None:
    """Compare the run in DIR_B with the one in DIR_A: latency, accuracy, conditions."""
    from orchestrator.results.compare import compare as compare_runs  # scipy takes a second to load

    found = compare_runs(dir_a, dir_b)
    if as_json:
        common.print_json(found.model_dump())
        return
    typer.echo(f"A  {found.a}\nB  {found.b}")
    if found.differences:
        common.print_table(
            ["Differs", "A", "B"],
            [
                [item.field, cut(item.a, SHOWN_CHARACTERS), cut(item.b, SHOWN_CHARACTERS)]
                for item in found.differences
            ],
        )
    else:
        typer.echo("Both runs had the same conditions.")
    typer.echo(_prompts(found))
    rows = [
        *_times("End to end p50, ms", found.end_to_end),
        *_times("Time to first token p50, ms", found.time_to_first_token),
        *_scores("Accuracy, %", found.accuracy),
        *_scores("Accuracy, normalised, %", found.accuracy_norm),
    ]
    if rows:
        common.print_table(["", ">n", ">A", ">B", ">B / A", ">B - A", ">p"], rows)


def _prompts(found: Comparison) -> str:
    text = f"{found.prompts} prompts are in both runs"
    if found.only_a or found.only_b:
        text += f", {found.only_a} in A only, {found.only_b} in B only"
    if found.failed:
        text += f"; {found.failed} of those in both have no answer in one of them"
    return text


def _times(name: str, times: Times | None) -> list[list[str]]:
    if times is None:
        return []
    a, b = (f"{1e3 * value:.1f}" for value in (times.a_p50_s, times.b_p50_s))
    change = _estimate(times.difference_s, 1e3, "+.1f")
    return [[name, str(times.n), a, b, _estimate(times.ratio, 1, ".3f"), change, ""]]


def _scores(name: str, scores: Scores | None) -> list[list[str]]:
    if scores is None:
        return []
    a, b = f"{100 * scores.a:.1f}", f"{100 * scores.b:.1f}"
    change = f"{100 * scores.change:+.1f}"
    return [[name, str(scores.n), a, b, "", change, f"{scores.mcnemar_p:.3g}"]]


def _estimate(estimate: Estimate, factor: float, form: str) -> str:
    """Format a value and its interval."""
    text = format(factor * estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{factor * estimate.low:{form}}, {factor * estimate.high:{form}}]"
