"""evaluation.report: what the page says of whole, of partial and of crashed runs, and how it looks in a browser."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation import report
from evaluation.page import sections
from evaluation.page.examples import choose_examples, extremes
from evaluation.page.run_files import RunFiles, read_run
from evaluation.texts import LANGUAGES, load_texts
from reward.records.files import BadInput
from tests.support.browser import careful_page, chromium, needs_chromium
from tests.support.finished_run import finished_run, with_everything, write_run

ENGLISH = load_texts("report", "en")
# How a number that is not there, or a text that was not found, would show.
ACCIDENT = re.compile(r"\bNone\b(?! took part)|\bnan\b|\binf\b|Undefined|\{\w+\}|&lt;built-in")


def write_log(path: Path, steps: int = 40, **more: float) -> Path:
    lines = []
    for step in range(1, steps + 1):
        share = step / steps
        line = {
            "step": step,
            "avg_reward": share - 0.5,
            "reward_retrieval": share,
            "reward_bonus": 0.0,
            "8b_win_rate_decided": share,
            "8b_avg_top1": 0.6,
            "32b_avg_top1": 0.5,
            "rewrite_length": 9.0,
            "gated": 0.2 * (1 - share),
            "abstained": 0.0,
            "cost_cny": 0.5,
        }
        if step <= 4:
            line["gated/number_invented"] = 0.1
        lines.append(json.dumps(line | more) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_report(folder: Path, *options: str) -> str:
    assert report.main(["--run", str(folder), *options]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """The page's visible text."""
    body = re.sub(r"<svg.*?</svg>", "", page[page.index("<body>") :], flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


@pytest.mark.parametrize(
    ("counts", "outcome", "words"),
    [
        ((60, 40, 10), "win", "The RL-trained rewriter beats the deployed baseline"),
        ((30, 40, 30), "undecided", "No clear difference between the RL-trained rewriter and the deployed baseline"),
        ((10, 40, 60), "loss", "The RL-trained rewriter does not beat the deployed baseline, it is worse"),
    ],
)
def test_report_tells_the_truth(tmp_path: Path, counts: tuple[int, int, int], outcome: str, words: str) -> None:
    write_run(tmp_path, *finished_run(*counts))
    page = write_report(tmp_path, "--title", "五个医生 <RL>")
    assert f'class="verdict {outcome}"' in page and words in page
    assert "五个医生 &lt;RL&gt;" in page and "<b>怎么吃" not in page
    assert "no training log was given" in page and "lexical" in page
    assert page.count('class="example"') == 10
    # Nothing is fetched: no script, link, import or picture.
    assert not re.search(r"<script|<link|<img|@import|url\(http|src=|href=\"http", page)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_whole_run_shows_every_part(tmp_path: Path, language: str) -> None:
    metrics, rows = finished_run(60, 40, 10)
    write_run(tmp_path, with_everything(metrics), rows)
    log = write_log(tmp_path / "rl" / "reward_metrics.jsonl")
    own = tmp_path / "rl" / "logs" / "metrics" / "from_step_000000.jsonl"
    own.parent.mkdir(parents=True)
    data = {"actor/entropy": 1.5, "actor/kl_loss": 0.01, "validation/avg_reward": 0.2}
    own.write_text(json.dumps({"step": 20, "data": data}) + "\n", encoding="utf-8")
    page = write_report(tmp_path, "--train-log", str(log), "--language", language)
    text, t = words_of(page), load_texts("report", language)
    assert f'<html lang="{language}">' in page and not ACCIDENT.search(text)
    headings = [re.sub(r"<[^>]+>", "", heading) for heading in re.findall(r"<h[23]>(.*?)</h[23]>", page)]
    for part in ("targets", "systems", "wins", "judge", "harmed", "speed", "slices", "training", "gates", "measured"):
        assert t(f"{part}.heading") in headings
    assert {t("extremes.losses"), t("extremes.gains"), t("gates.held_out")} <= set(headings)
    # Target beside measured.
    met, missed, unknown = t("targets.met"), t("targets.missed"), t("targets.unknown")
    rl = t("system.rl")

    def target(value: str) -> str:
        return t("targets.target", target=value)

    judged = f"{t('targets.judge_score')} 4.00 {target('4.20')} 4.25 ✗ {missed} {target('4.50')}"
    assert judged in text and f"90.0 % ✓ {met} {target('85.0 %')}" in text
    assert f"{unknown} {target('350 ms')}" in text and f"$0.50 ✓ {met} {target('$0.85')}" in text
    # The judge, corrected and beside people; its own doubts.
    assert (
        "66.7 %" in text
        and "71.0 %" in text
        and "κ 0.62 0.40–0.80" in text
        and "gpt-5" in text
        and f"{rl}: deepseek-v3.1" in text
    )
    assert t("judge.abstained", n=3) in text and t("judge.forced") not in text
    # Harm, speed, provenance, what is missing.
    assert "15.0 % 9.0–20.0 %, n = 110" in text and "→ 0.950" in text
    harmed = text[text.index(t("harmed.list", label=rl, n=15)) : text.index(t("speed.heading"))]
    assert "t_060" in harmed and "t_069" in harmed and "t_070" not in harmed
    assert "321 ms 477 ms n = 50 120 11 0.50" in text
    assert "0123456789abcdef" in text and "kb_version: &#39;1&#39; in training" in text
    assert "cost is not measured" in text and "a_new_reason 1" in text and f"{t('gate.number_invented')} 2" in text
    # A small curve for each question that was logged.
    titles = re.findall(r"<figcaption>(.*?) <span", page)
    wanted = ("reward", "win_rate", "parts", "scores", "kl", "entropy", "length", "unusable", "cost")
    assert titles == [t(f"curve.{name}") for name in wanted]
    assert page.count("<svg") == len(titles) and page.count('role="img"') == len(titles)


def test_a_judge_that_trained_the_model_is_marked() -> None:
    metrics, rows = finished_run(6, 4, 1)
    metrics = with_everything(metrics)
    metrics["judge"]["forced"] = True
    page = report.render_report(RunFiles(metrics, rows, []), ENGLISH)
    assert '<p class="warning forced">FORCED: this judge also trained the model' in page


def test_what_a_crash_leaves_is_shown_and_what_is_missing_is_named(tmp_path: Path) -> None:
    _, rows = finished_run(60, 40, 10)
    folder = write_run(tmp_path / "run", None, rows)
    with (folder / "rewrites.jsonl").open("ab") as torn:
        torn.write('{"sample_id": "t_999", "query": "钙'.encode()[:-1])
    log = write_log(tmp_path / "rl" / "reward_metrics.jsonl")
    log.write_text(log.read_text(encoding="utf-8") + '{"step": 41, "avg_rew', encoding="utf-8")
    own = tmp_path / "rl" / "logs" / "metrics" / "from_step_000000.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text('{"step": 1, "data": {"actor/entropy": 1.5}}\n{"step": 2, "da', encoding="utf-8")
    text = words_of(write_report(folder, "--train-log", str(log)))
    assert "The comparison did not finish: metrics.json is missing" in text
    for file in ("rewrites.jsonl", "reward_metrics.jsonl", "from_step_000000.jsonl"):
        assert f"{file}: the last line is cut off" in text
    assert "No two systems were compared." in text and "Mean reward of the first tenth of 40 steps" in text
    assert "10 examples: After RL against Deployed baseline" in text and "t_999" not in text
    assert not ACCIDENT.search(text)


def test_a_training_alone_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = words_of(write_report(tmp_path / "run", "--train-log", str(write_log(tmp_path / "log.jsonl"))))
    assert "metrics.json is missing" in text and "rewrites.jsonl is missing" in text
    assert "no log of the trainer was found" in text


@pytest.mark.parametrize("metrics", [{}, {"systems": None, "provenance": None}, {"provenance": {"missing": None}}])
def test_parts_that_are_missing_are_named(tmp_path: Path, metrics: dict[str, Any]) -> None:
    write_run(tmp_path, metrics, finished_run(6, 4, 1)[1])
    text = words_of(write_report(tmp_path))
    for part in ("systems", "slices", "win_rate"):
        assert f"metrics.json lacks its part “{part}”" in text
    assert "did not finish" not in text and "10 examples" in text and not ACCIDENT.search(text)


def test_a_log_without_a_step_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, *finished_run(6, 4, 1))
    (tmp_path / "log.jsonl").write_text('{"step": 1, "avg', encoding="utf-8")
    text = words_of(write_report(tmp_path, "--train-log", str(tmp_path / "log.jsonl")))
    assert "log.jsonl: holds no step" in text and "log.jsonl: the last line is cut off" in text


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json: not JSON"),
        ("metrics.json", "[]", "expected an object, found list"),
        ("rewrites.jsonl", '{"a": 1\n{"b": 2}\n', "rewrites.jsonl: row 1: not JSON"),
        ("rewrites.jsonl", "[1]\n{}\n", "row 1: expected an object, found list"),
        ("log.jsonl", '{"avg_reward": 1}\n', "row 1: step: expected an integer"),
        ("metrics.json", "[" * 100_000, "metrics.json: not JSON"),
        ("metrics.json", '{"a": ' + "9" * 5000 + "}", "metrics.json: not JSON"),
        ("metrics.json", '{"systems": {"rl": 3}}', "systems.rl: expected an object, found 3"),
        ("metrics.json", '{"targets": {}}', "targets: expected a list, found {}"),
        ("metrics.json", '{"pass_through": -1}', "pass_through: expected an object, found -1"),
        (
            "metrics.json",
            '{"systems": {"rl": {"ci95": {"top1": [1]}}}}',
            "ci95.top1: expected two numbers, found [1]",
        ),
        (
            "metrics.json",
            '{"win_rate": {"a_vs_b": {"win": true}}}',
            "win_rate.a_vs_b.win: expected a number, found True",
        ),
        ("metrics.json", '{"provenance": {"cut": "x"}}', "provenance.cut: expected an object, found 'x'"),
        ("metrics.json", '{"targets": [{"metric": [1]}]}', "targets.0.metric: expected a text, found [1]"),
        ("rewrites.jsonl", '{"query": "q"}\n{"systems": []}\n', "row 2: systems: expected an object, found []"),
        ("rewrites.jsonl", '{"systems": {"rl": {"rank": "1"}}}\n', "row 1: systems.rl.rank: expected a number"),
        (None, "", "run evaluation.compare first"),
    ],
)
def test_damage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str | None, content: str, message: str
) -> None:
    options: list[str] = []
    if file:
        write_run(tmp_path, *finished_run(6, 4, 1))
        (tmp_path / file).write_text(content, encoding="utf-8")
        options = ["--train-log", str(tmp_path / file)] if file == "log.jsonl" else []
    assert report.main(["--run", str(tmp_path), *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308, 10**400])
def test_what_a_diverged_training_logged_is_named_and_left_out_of_the_curves(tmp_path: Path, value: float) -> None:
    write_run(tmp_path, *finished_run(6, 4, 1))
    log = write_log(tmp_path / "rl" / "reward_metrics.jsonl", steps=4)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lines[1]["avg_reward"] = lines[2]["avg_reward"] = lines[2]["rewrite_length"] = value
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    words = words_of(write_report(tmp_path, "--train-log", str(log)))
    assert "3 logged values of 2 metrics are no finite numbers" in words and "avg_reward (2)" in words
    assert not ACCIDENT.search(words)


def test_a_lone_surrogate_in_a_query_is_shown_as_no_character(tmp_path: Path) -> None:
    metrics, rows = finished_run(6, 4, 1)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "rewrites.jsonl").write_text("".join(json.dumps(row | {"query": "\ud83d"}) + "\n" for row in rows))
    assert "?" in words_of(write_report(tmp_path))


def test_any_part_of_the_metrics_may_be_missing() -> None:
    """Every key of the first four levels, each alone: removed, or no number where it was one."""
    metrics, rows = finished_run(2, 1, 1)
    whole = with_everything(metrics)
    for path in paths_of(whole, 4):
        damaged = copy.deepcopy(whole)
        parent: Any = damaged
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent[path[-1]], float):
            parent[path[-1]] = math.nan
        else:
            del parent[path[-1]]
        text = words_of(report.render_report(RunFiles(damaged, rows, []), ENGLISH))
        assert not ACCIDENT.search(text), path


def paths_of(node: Any, depth: int, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    found = []
    for key in keys if depth else []:
        found += [(*before, key), *paths_of(node[key], depth - 1, (*before, key))]
    return found


def test_the_trainers_console_tells_what_no_file_logger_wrote(tmp_path: Path) -> None:
    log = write_log(tmp_path / "reward_metrics.jsonl", 2)
    (tmp_path / "grpo.log").write_text(
        "\x1b[36m(TaskRunner pid=1)\x1b[0m step:1 - actor/entropy:2.5 - actor/kl_loss:-0.5 - avg_reward:9 - note:x\n"
        "step:2 - actor/entropy:np.float64(1.5) - actor/ppo_kl:1e-05\nTraining Progress: 2/2\n",
        encoding="utf-8",
    )
    run = read_run(tmp_path, log, tmp_path / "grpo.log", ENGLISH)
    assert [line["actor/entropy"] for line in run.log] == [2.5, 1.5]
    assert (run.log[0]["actor/kl_loss"], run.log[1]["actor/ppo_kl"]) == (-0.5, 1e-05)
    assert run.log[0]["avg_reward"] == 0.0  # the reward's own log says it
    with pytest.raises(BadInput, match="no such file"):
        read_run(tmp_path, log, tmp_path / "none.log", ENGLISH)


def test_gates_of_the_first_and_the_last_tenth(tmp_path: Path) -> None:
    log = read_run(tmp_path, write_log(tmp_path / "log.jsonl"), None, ENGLISH).log
    gated, invented = sections.gate_rows(log)
    assert (gated["name"], invented["name"]) == ("gated", "gated/number_invented")
    assert gated["first"] > 0.18 and gated["last"] == pytest.approx(0.0075)
    assert (invented["first"], invented["last"]) == (pytest.approx(0.1), 0)
    assert sections.gate_rows([{"step": 1, "avg_reward": 0.5}]) == []


def test_examples_show_losses_in_proportion() -> None:
    _, rows = finished_run(60, 38, 2)
    chosen = choose_examples(rows, "rl", "baseline", by_rank=True, seed=0)
    assert Counter(row["outcome"] for row in chosen) == {"win": 6, "tie": 3, "loss": 1}
    assert chosen == choose_examples(rows, "rl", "baseline", by_rank=True, seed=0)
    assert chosen != choose_examples(rows, "rl", "baseline", by_rank=True, seed=1)
    assert len(choose_examples(rows[:3], "rl", "baseline", by_rank=True, seed=0)) == 3


def test_the_worst_losses_and_the_greatest_gains_come_first() -> None:
    def row(name: str, rl: int | None, baseline: int | None, **more: Any) -> dict[str, Any]:
        systems = {"rl": {"rank": rl, "top1": 0.1}, "baseline": {"rank": baseline, "top1": 0.2}}
        return {"sample_id": name, "systems": systems, "abstained": None} | more

    rows = [row("small_loss", 3, 2), row("tie", 4, 4), row("lost", None, 1), row("small_gain", 2, 3), row("won", 1, 9)]
    rows += [row("left_out", 9, 1, abstained="rl: HTTP 500"), {"sample_id": "odd", "systems": {"rl": {}}}]
    losses, gains = extremes(rows, "rl", "baseline", by_rank=True)
    assert [r["sample_id"] for r in losses] == ["lost", "small_loss"]
    assert [r["sample_id"] for r in gains] == ["won", "small_gain"]
    assert len(extremes(rows, "rl", "baseline", by_rank=False)[0]) == 5


@pytest.mark.parametrize(
    ("systems", "pair"),
    [
        (["original", "baseline", "sft", "rl"], ("rl", "baseline")),
        (["original", "baseline", "qwen8b"], ("qwen8b", "baseline")),
        (["original", "rl"], ("rl", "original")),
        (["original", "baseline"], ("baseline", "original")),
        (["original"], None),
        ([], None),
    ],
)
def test_the_most_trained_system_meets_what_it_has_to_beat(systems: list[str], pair: tuple[str, str] | None) -> None:
    assert sections.contest(systems) == pair


def test_a_win_rate_without_its_rate_is_no_draw() -> None:
    metrics, _ = finished_run(60, 40, 10)
    del metrics["win_rate"]["rl_vs_baseline"]["rate"]
    conclusion = sections.headline(metrics, ENGLISH)
    assert conclusion.outcome == "none" and "is not whole in metrics.json" in conclusion.sentence
    del metrics["win_rate"]
    assert sections.headline(metrics, ENGLISH).sentence == "No two systems were compared."


def test_both_languages_say_the_same_things() -> None:
    chinese, english = (load_texts("report", language) for language in LANGUAGES)
    assert set(chinese) == set(english)
    for name in english:
        assert set(re.findall(r"\{\w+\}", chinese(name))) == set(re.findall(r"\{\w+\}", english(name))), name


@needs_chromium
def test_the_page_fits_a_phone_a_desk_and_paper(tmp_path: Path) -> None:
    metrics, rows = finished_run(60, 40, 10)
    write_run(tmp_path, with_everything(metrics), rows)
    log = write_log(tmp_path / "log.jsonl")
    write_report(tmp_path, "--train-log", str(log), "--language", "zh")
    with chromium() as browser:
        for width in (390, 1280):
            with careful_page(browser, width=width) as page:
                page.goto((tmp_path / "report.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.locator(".curve svg").first.bounding_box()["width"] > 200
        page = browser.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 700, "height": 1000})  # A4 within its margins
        wide = "[...document.querySelectorAll('.scroll')].filter(t => t.scrollWidth > t.clientWidth + 1).length"
        assert page.evaluate(wide) == 0
        assert page.pdf(format="A4").count(b"/Type /Page\n") >= 2
