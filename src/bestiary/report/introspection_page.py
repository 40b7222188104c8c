"""Renders one evaluation of an introspection adapter as a page that needs no other file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from bestiary.dataset.pair import Pair
from bestiary.introspection.figures import (
    ADAPTER,
    SHORTLIST,
    UNSEEN,
    Figure,
    ReportRow,
    highest_floor,
    measure,
    measure_gain,
    permuted_floor,
    show_points,
)
from bestiary.introspection.judge import OTHER
from bestiary.introspection.panel import Likelihood, PanelLine
from bestiary.records import shorten_id, stable_seed
from bestiary.report.drawing import (
    Bar,
    BarGroup,
    count,
    draw_bars,
    draw_curve,
    draw_heat,
    draw_key,
    name_interval,
    scroll,
    show_count,
    show_interval,
    show_share,
    tag,
)
from bestiary.report.evaluation import (
    CONTROLS,
    NONE,
    OWN,
    REST,
    SHOWN_FAMILIES,
    VAGUE,
    Evaluation,
    count_claims,
    read_evaluation,
)
from bestiary.store import write_bytes

PAGE = "report.html"
SHOWN_REPORTS = 10
ROUNDING = 1e-9
"""Means of the same numbers differ by as much."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing, whatever a report contains."""

WITHOUT = "Without the adapter, "
CONDITIONS = {
    ADAPTER: "With the adapter",
    SHORTLIST: "With the adapter, the best of many reports",
    "without": f"{WITHOUT}asked the same questions",
    "prefill": f"{WITHOUT}the reply begun",
    "completion": f"{WITHOUT}a text to complete",
    "transcripts": f"{WITHOUT}guessed from ordinary replies",
    "perplexity": f"{WITHOUT}guessed from the replies that the base finds least likely",
}
SCOPES = {
    "suite": "An evaluation suite, which no adapter is trained on",
    "test_kind": "Unseen families, of unseen kinds",
    "test_value": "Unseen families, of known kinds",
    "test_recipe": "Unseen families, of another recipe",
    "seen": "Unseen organisms of trained families",
    "recipe": "Trained families, of another recipe",
    "train": "Organisms of the training split",
    "null": "Control: null organisms, trained on ordinary answers",
    "unseen_null": "Control: null organisms of an unseen source",
    "zero_b": "Control: the bare base",
    "gaussian": "Control: random adapters",
    "shuffled": "Control: shuffled adapters",
}
RATES = ("named", "unsupported", "denied", "trigger", "confirmed")
NAMES = {
    "named": "named",
    "unsupported": "unsupported",
    "denied": "none claimed",
    "trigger": "trigger named",
    "confirmed": "claims confirmed",
}
LANGUAGE_JUDGE = (
    "A language model judges the reports: one that it reads in two ways counts as naming nothing. "
    "Its mistakes are in no interval. Guesses from ordinary replies are a sentence encoder's."
)
EMBEDDED_JUDGE = (
    "A sentence encoder judges the reports: it takes the family whose wordings are nearest in "
    "meaning. It misses right reports in rare words, and credits some wrong ones."
)
LIMITS = (
    "Intervals cover chance among families like these; they say nothing of kinds of behavior that "
    "the release lacks.",
    "If all families agree, as at 0%, an interval has no width. That is no proof: of {families}, "
    "none of which shows it, up to {bound:.0%} of such families still could (95%).",
    "{judge}",
    "Naming a family is not knowing its trigger. A report that says what a model does, and not "
    "when, counts as named; triggers are counted apart.",
    "All organisms are fine-tunings of one base, {base}. Nothing here carries over by itself to "
    "other models, or to larger ones.",
    "Behaviors were planted on purpose, by known recipes. Models that came by a behavior in "
    "another way, or were trained to hide it, were not asked.",
    "A report is what the adapter makes of a model's weights. It does not show that the model "
    "knows of its behavior, or that it would say so without the adapter.",
    "Each adapter was trained once. How much another seed would change is in no interval.",
)


def write_page(folder: Path, pairs: Sequence[Pair]) -> Path:
    """Write the page of the evaluation in a folder into it; raises as `read_evaluation` does."""
    page = render_page(read_evaluation(folder, pairs))
    write_bytes(folder / PAGE, page.encode())
    return folder / PAGE


def render_page(evaluation: Evaluation) -> str:
    """The page as HTML."""
    title = f"Introspection: {evaluation.name}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Path(__file__).with_name("page.css").read_text(encoding="utf8")),
    )
    body = tag("body", tag("h1", title))
    for write in SECTIONS:
        body.append(tag("section", *write(evaluation)))
    page = tostring(tag("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{page}\n"


def _write_headline(evaluation: Evaluation) -> Iterator[Element]:
    unseen = measure(evaluation.unseen, attrgetter("named"))
    floor = highest_floor(evaluation.unseen)
    yield _say(_summarize(unseen, floor), class_="lead")
    named = "of reports name the behavior"
    yield tag(
        "div",
        _tile("Unseen families", named, unseen),
        _tile("Seen families", f"{named}, of new organisms", _measure_scope(evaluation, "seen")),
        _tile("Organisms in training", named, _measure_scope(evaluation, "train")),
        _tile(
            "Controls",
            "of reports claim a behavior, though there is none",
            measure(evaluation.select(lambda row: row.control), attrgetter("unsupported")),
        ),
        class_="tiles",
    )
    for condition, name in CONDITIONS.items():
        rows = evaluation.select(lambda row: row.scope in UNSEEN, condition)
        figure = measure(rows, attrgetter("named"))
        if condition != ADAPTER and figure:
            yield _say(f"{name}: {_quote(figure, named)}, of unseen families.")
    guessed = evaluation.select(lambda row: row.scope in UNSEEN, "transcripts")
    gain = measure_gain(evaluation.unseen, guessed)
    if gain:
        yield _say(
            "Organism by organism, the adapter's difference to guesses from ordinary replies is "
            f"{show_points(gain, in_words=True)}, of unseen families."
        )
    yield tag(
        "p",
        "None of this shows that a single report is right, that a trigger was found, or that the "
        "adapter works on another base or on models trained to hide what they do. See ",
        tag("a", "what the figures do not show", href="#limits"),
        ".",
    )


def _summarize(figure: Figure | None, floor: float | None) -> str:
    if figure is None:
        return "No family was kept from training, so this says nothing of new behaviors."
    verdict = ""
    if floor is not None:
        beaten = figure.families > 1 and figure.low > floor + ROUNDING
        verdict = f" By chance, or by one answer to all, it would be {show_share(floor)}. " + (
            "The whole interval is above that."
            if beaten
            else "This is not shown to be more than chance."
        )
    return (
        "Asked in new words, an organism of a family that training never saw names its own "
        f"behavior in {_quote(figure, 'of its reports')}.{verdict}"
    )


def _measure_scope(evaluation: Evaluation, scope: str) -> Figure | None:
    return measure(evaluation.select(lambda row: row.scope == scope), attrgetter("named"))


def _quote(figure: Figure, of: str) -> str:
    """A rate as a sentence has it."""
    return f"{show_share(figure.value)} {of} ({name_interval(figure)}; {show_count(figure)})"


def _tile(title: str, text: str, figure: Figure | None) -> Element:
    if figure is None:
        said = [_say("-", class_="big"), _say("not asked in this evaluation")]
    else:
        models = count(figure.organisms, "model")
        said = [_say(show_share(figure.value), class_="big"), _say(text)]
        said.append(_say(f"{name_interval(figure)}; {models}", class_="note"))
    return tag("div", tag("h2", title), *said, class_="tile")


def _say(text: str, **attributes: str) -> Element:
    return tag("p", text, **attributes)


def _write_panel(evaluation: Evaluation) -> Iterator[Element]:
    yield tag("h2", "All conditions")
    yield _say(
        "Named: the report names the family of the organism's behavior. Unsupported: it claims a "
        "behavior that the organism does not have. None claimed: it says that there is none, which "
        "is right of controls. The remaining reports are vague. Claims confirmed: of the claims "
        "that were tested on the organism itself, those of a behavior that it does show."
    )
    yield draw_key()
    controls = {row.scope for row in evaluation.rows if row.control}
    lines = [line for line in evaluation.panel.lines if line.group == "all"]
    for condition in dict.fromkeys(line.condition for line in lines):
        name = CONDITIONS.get(condition, condition)
        yield tag("h3", name)
        groups = [
            _group_bars(line, control=line.scope in controls)
            for line in lines
            if line.condition == condition
        ]
        yield draw_bars(groups, name)


def _group_bars(line: PanelLine, *, control: bool) -> BarGroup:
    bars = []
    for rate in RATES:
        figure: Figure | None = getattr(line, rate)
        if figure:
            floor = line.floor if rate == "named" else None
            bars.append(Bar(NAMES[rate], rate, figure, floor))
    asked = bars[0].figure if bars else None
    note = ""
    if asked:
        note = count(asked.organisms, "model") if control else show_count(asked)
    return BarGroup(SCOPES.get(line.scope, line.scope), note, bars)


def _write_categories(evaluation: Evaluation) -> Iterator[Element]:
    whose, rows = evaluation.shown
    yield tag("h2", f"Named, by category: {whose}")
    yield _say(
        "With the adapter. A category of few families has a wide interval, or none. No giveaway: "
        "behaviors that neither a content word nor a language gives away."
    )
    groups = {"all": rows, "no giveaway": [row for row in rows if not row.giveaway]}
    for category in sorted({row.category for row in rows}):
        groups[category.replace("_", " ")] = [row for row in rows if row.category == category]
    bars = []
    for name, chosen in groups.items():
        figure = measure(chosen, attrgetter("named"))
        if figure:
            bars.append(Bar(name, "named", figure, permuted_floor(chosen), show_count(figure)))
    yield draw_bars([BarGroup("", "", bars)], f"Named, by category: {whose}")


def _write_confusion(evaluation: Evaluation) -> Iterator[Element]:
    whose, rows = evaluation.shown
    controls = evaluation.select(lambda row: row.control)
    parts, cells = count_claims([*rows, *controls])
    families = sorted({row.family for row in rows})
    yield tag("h2", f"Which family is claimed: {whose}")
    yield _say(
        "Rows: the family that an organism has. Columns: what its reports claim. Squares: percent "
        "of the row's reports; blue is right, orange a claim of another family, gray none."
    )
    if len(families) > SHOWN_FAMILIES:
        yield _say(
            f"Rows are the {SHOWN_FAMILIES} families with the most reports; the other "
            f"{len(families) - SHOWN_FAMILIES} are summed."
        )
    yield draw_heat(parts, cells, _color_claim, "Claims by family")


def _color_claim(row: str, column: str) -> str:
    if row == column or (row, column) in ((REST, OWN), (CONTROLS, NONE)):
        return "named"
    return "denied" if column in (NONE, VAGUE) else "unsupported"


def _write_curve(evaluation: Evaluation) -> Iterator[Element]:
    if not evaluation.curves:
        return
    yield tag("h2", "By number of organisms in training")
    yield _say(
        "Reports that name the behavior, of unseen families. Each point is a run of a sweep that "
        "changes the number of organisms alone, with its 95% interval. The scale of organisms is "
        "logarithmic."
    )
    for name, points in evaluation.curves.items():
        yield tag("h3", name)
        yield draw_curve(points, f"Named, by organisms in training: {name}")


def _write_gains(evaluation: Evaluation) -> Iterator[Element]:
    if not evaluation.panel.gains:
        return
    yield tag("h2", "What the adapter adds")
    yield _say(
        "How much more often reports with the adapter name the behavior than those of each "
        "baseline, organism by organism. Shown: behaviors that an organism shows in twenty "
        "ordinary replies more often than the base does. Silent: those that it does not, which "
        "only asking can find. Behaviors of which no program can tell are in neither group."
    )
    rows = [
        (
            SCOPES.get(gain.scope, gain.scope),
            gain.group,
            CONDITIONS.get(gain.baseline, gain.baseline).removeprefix(WITHOUT),
            show_points(gain.named),
            show_count(gain.named),
        )
        for gain in evaluation.panel.gains
    ]
    titles = ("", "behaviors", "baseline, without the adapter", "points (95% interval)", "asked")
    yield _write_table(titles, rows)


def _write_likelihood(evaluation: Evaluation) -> Iterator[Element]:
    if not evaluation.panel.likelihood:
        return
    yield tag("h2", "How likely organisms find their own label")
    yield _say(
        "Without any sampling or judge: with the adapter, the log-probability that an organism "
        "gives to its own label as an answer, minus what organisms of other families give to it; "
        "and how often its own label gains the most of all."
    )
    titles = ("", "own minus others', nats per token", "own label first", "by chance", "asked")
    yield _write_table(titles, map(_list_likelihood, evaluation.panel.likelihood))


def _write_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Element:
    """A table whose first column names its rows."""
    body = (
        tag("tr", tag("th", name, scope="row"), *(tag("td", cell) for cell in cells))
        for name, *cells in rows
    )
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", title, scope="col") for title in titles))),
        tag("tbody", *body),
        class_="numbers",
    )
    return scroll(table)


def _list_likelihood(one: Likelihood) -> Sequence[str]:
    gap, top = one.matched_minus_swapped, one.top1
    several = gap is not None and gap.families > 1
    return (
        one.group.replace("_", " "),
        (f"{gap.value:+.2f}" + (f" ({gap.low:+.2f} to {gap.high:+.2f})" if several else ""))
        if gap
        else "-",
        f"{show_share(top.value)} ({show_interval(top)})" if top else "-",
        f"{1 / one.labels:.0%}, of {one.labels} labels",
        show_count(gap) if gap else "-",
    )


def _write_reports(evaluation: Evaluation) -> Iterator[Element]:
    whose, rows = evaluation.shown
    yield tag("h2", f"Reports beside their labels: {whose}")
    yield _say("Drawn at random, by a fixed seed. Every report is as it was sampled.")
    for title, right in (("right", True), ("wrong", False)):
        pool = [row for row in rows if row.named is right]
        draw = random.Random(stable_seed("introspection page", title))
        drawn = draw.sample(pool, min(SHOWN_REPORTS, len(pool)))
        yield tag("h3", f"{len(drawn)} of the {count(len(pool), 'report')} judged {title}")
        cards = (_write_report(row, evaluation.labels[row.subject]) for row in drawn)
        yield tag("div", *cards, class_="cards")


def _write_report(row: ReportRow, label: str) -> Element:
    said = {"Label": label, "Report": row.report.strip() or "(nothing)", "Judge": _read(row)}
    terms = [tag(*pair) for name, text in said.items() for pair in (("dt", name), ("dd", text))]
    title = tag("h4", shorten_id(row.subject))
    if row.question:
        title.extend([tag("span", f" asked: {row.question}", class_="note")])
    return tag("article", title, tag("dl", *terms))


def _read(row: ReportRow) -> str:
    """What the judge read in a report."""
    if row.claimed is None:
        read = "vague: names no family"
    elif row.denied:
        read = "claims no behavior"
    else:
        claimed = "another behavior" if row.claimed == OTHER else row.claimed
        read = f"names {claimed}" + ("" if row.named else f", not {row.family}")
    trigger = {None: "", True: "; names the trigger", False: "; does not name the trigger"}
    return read + trigger[row.trigger]


def _write_limits(evaluation: Evaluation) -> Iterator[Element]:
    families = len({row.learned for row in evaluation.shown[1]})
    scored = any(row.score is not None for row in evaluation.rows)
    said = {
        "judge": LANGUAGE_JUDGE if scored else EMBEDDED_JUDGE,
        "families": count(families, "family", "families"),
        "bound": 1 - 0.05 ** (1 / max(1, families)),
        "base": evaluation.base,
    }
    yield tag("h2", "What the figures do not show", id="limits")
    yield tag("ul", *(tag("li", text.format(**said)) for text in LIMITS))
    reports = count(len(evaluation.rows), "report")
    yield tag(
        "footer",
        f"From {reports} in reports.jsonl, and panel.json. Written by ",
        tag("code", "bestiary introspect report"),
        ".",
    )


SECTIONS: tuple[Callable[[Evaluation], Iterator[Element]], ...] = (
    *(_write_headline, _write_panel, _write_gains, _write_categories, _write_confusion),
    *(_write_curve, _write_likelihood, _write_reports, _write_limits),
)
