"""evaluation.inspect on logs as a run writes them: page in a real headless Chromium, CSV, Markdown, and the review."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from evaluation import inspect
from evaluation.inspection.review import COLUMNS, is_policy_first
from reward.judge.canary import read_pairs
from reward.records.outcome import AbstainReason, Rollout
from reward.records.sample import Context, Metadata
from reward.rollouts.rollout_log import FOLDER, read_rollouts
from tests.support.logged_rollouts import good_rewrite, healthy_run, make_rollout, make_sample, pointwise, write_run

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="no Chromium: requirements/install_chromium.sh installs it where it may"
)
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\u202eسعر زيت السمك\u202c שלום &lt;b&gt; \u2028 \u0000",
    "很长" * 5000,
    '=HYPERLINK("http://example.org")',
    "<!--<script>",
)


def odd_rollouts() -> list[Rollout]:
    """Four siblings of a step, one of them hostile in every text; a gated, an abstained and a harmed one."""
    hostile = [
        make_rollout(
            number=i,
            step=1,
            rewrite=text,
            sample=make_sample(
                i,
                original_query=f"{text} 鱼油怎么吃",
                context=Context(user_profile=text, history_context=text),
                metadata=Metadata(tenant_id="fivedoctors", slices=("hostile", text[:60])),
            ),
        )
        for i, text in enumerate(HOSTILE)
    ]
    alike = [make_rollout(number=7, step=2, rank=2) for _ in range(4)]
    return [
        *hostile,
        *alike,
        make_rollout(number=8, step=3, rewrite=""),
        make_rollout(number=9, step=3, failed=AbstainReason.RAG),
        make_rollout(number=10, step=3, rank=9, baseline_rank=40, plain_rank=2),
        make_rollout(number=11, step=4, rank=40, baseline_rank=1, judgement=pointwise(5, 1)),
    ]


def inspected(tmp_path: Path, rollouts: list[Rollout], *more: str) -> Path:
    run = write_run(tmp_path / "run", rollouts)
    assert inspect.main(["--run", str(run), "--out", str(tmp_path / "out"), *more]) == 0
    return tmp_path / "out"


def csv_rows(out: Path, name: str = "rows.csv") -> list[dict[str, str]]:
    with (out / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_row_and_no_formula(tmp_path: Path) -> None:
    rows = csv_rows(inspected(tmp_path, odd_rollouts(), "--rows", "3"))
    assert len(rows) == len(odd_rollouts())
    assert rows[2]["rewrite"] == HOSTILE[2]
    assert rows[3]["rewrite"] == f"'{HOSTILE[3]}"
    assert [row["kind"] for row in rows[-4:]] == ["gated", "abstained", "scored", "scored"]
    assert "siblings all earn the same" in rows[5]["anomalies"]
    assert "worse than the query itself" in rows[-2]["anomalies"]
    assert "judge against retrieval" in rows[-1]["anomalies"]
    assert rows[-3]["reward"] == ""
    assert (rows[-2]["policy_rank"], rows[-2]["plain_rank"]) == ("9", "2")
    added = sum(float(rows[-1][name]) for name in ("retrieval", "judge", "length_penalty", "recital_penalty"))
    assert added + float(rows[-1]["idle_penalty"]) + float(rows[-1]["bonus"]) == pytest.approx(
        float(rows[-1]["reward"]), abs=1e-3
    )


def test_markdown_keeps_hostile_text_in_its_cell(tmp_path: Path) -> None:
    out = inspected(tmp_path, [*odd_rollouts(), make_rollout(number=12, step=5, rewrite="a | b\n| c | [x](http://e)")])
    text = (out / "rows.md").read_text(encoding="utf-8")
    assert "<script" not in text and "<img" not in text
    assert "\u202e" not in text and "⟨U+202E⟩" in text
    assert "a \\| b \\| c \\| \\[x](http://e)" in text
    for line in text.splitlines():
        if line.startswith("|") and "reward" not in line:
            assert line.replace("\\|", "").count("|") in (4, 7)


def test_broken_lines_are_named_and_counted(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path / "run", odd_rollouts())
    log = next((run / FOLDER).glob("*.jsonl"))
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = b'{"step": 1, "time": "no"}\n'
    lines[3] = b"\xff\xfe not json\n"
    log.write_bytes(b"".join(lines) + lines[0][:200])
    assert inspect.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "row 2: " in said and "row 4: " in said
    assert f"row {len(lines) + 1}: ends in the middle of a line" in said
    assert "3 broken lines" in said
    assert len(csv_rows(tmp_path / "out")) == len(lines) - 2
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "3 broken lines in the log" in page
    assert "3 broken lines" in (tmp_path / "out" / "rows.md").read_text(encoding="utf-8")
    # Whoever scores or resumes from the log still refuses a broken line.
    with pytest.raises(Exception, match="row 2"):
        list(read_rollouts(run))


def test_resumed_run_shows_the_last_attempt_although_a_line_is_broken(tmp_path: Path) -> None:
    first = [make_rollout(number=i, step=step) for step in (1, 2, 3) for i in range(2)]
    run = write_run(tmp_path / "run", first)
    write_run(run, [make_rollout(number=i, step=step, rewrite="钙片 再写") for step in (2, 3) for i in range(2)])
    second = sorted((run / FOLDER).glob("*.jsonl"))[1]
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"broken\n" + b"".join(lines[1:]))
    assert inspect.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 1
    rows = csv_rows(tmp_path / "out")
    assert [row["step"] for row in rows] == ["1", "1", "2", "3", "3"]
    assert [row["rewrite"] == "钙片 再写" for row in rows] == [False, False, True, True, True]


@pytest.mark.parametrize("content", ["", "no json\n", '{"step": 1}\n'])
def test_log_without_a_row_is_refused(tmp_path: Path, content: str, capsys: Any) -> None:
    folder = tmp_path / "run" / FOLDER
    folder.mkdir(parents=True)
    (folder / "rollouts-00000.jsonl").write_text(content)
    assert inspect.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "holds no row that can be read" in capsys.readouterr().err
    assert not (tmp_path / "out" / "rows.csv").exists()


def test_big_log_is_bounded_and_the_rest_counted(tmp_path: Path) -> None:
    rollouts = [*healthy_run(steps=20, prompts=6, siblings=4), *odd_rollouts()]
    out = inspected(tmp_path, rollouts, "--rows", "100")
    page = (out / "index.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data) == 100
    assert f"The other {len(rollouts) - 100} are in the CSV file" in page
    assert len(csv_rows(out)) == len(rollouts)
    # What is rare is there: the only abstained-by-RAG kinds, the harmed one.
    assert {"worse than the query itself", "judge against retrieval"} <= {name for row in data for name in row["odd"]}
    assert all(len(row.get("rewrite", "")) < 2100 for row in data)
    assert len(page) < 400_000


def test_samples_are_shown_too(tmp_path: Path, capsys: Any) -> None:
    samples = [make_sample(i, rewritten_query=f"鱼油 {i}").to_json() for i in range(3)]
    (tmp_path / "samples.jsonl").write_text("\n".join([*samples, '{"sample_id": 4}']), encoding="utf-8")
    arguments = ["--samples", str(tmp_path / "samples.jsonl"), "--out", str(tmp_path / "out")]
    assert inspect.main(arguments) == 1
    assert "row 4: sample_id" in capsys.readouterr().err
    rows = csv_rows(tmp_path / "out")
    assert [row["rewrite"] for row in rows] == ["鱼油 0", "鱼油 1", "鱼油 2"]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    rollouts = [
        make_rollout(
            number=i,
            step=i,
            rewrite=f"{'=' if i == 3 else ''}{good_rewrite(i)} 改写",
            sample=make_sample(
                i, context=Context(history_context="用户: 你好\n助手: 您好", user_profile="四十岁"), sample_id=f"s{i}"
            ),
        )
        for i in range(6)
    ]
    rollouts += [rollouts[0], make_rollout(number=7, rewrite="")]
    return inspected(tmp_path, rollouts, "--review", "10") / "review.csv"


def fill(sheet: Path, change: Any, **how: Any) -> Path:
    """Write the sheet as a spreadsheet program would, after `change(rows)`."""
    rows = csv_rows(sheet.parent, sheet.name)
    change(rows)
    filled = sheet.with_name("filled.csv")
    with filled.open("w", encoding=how.get("encoding", "utf-8"), newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=how.get("delimiter", ","), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    return filled


def test_text_that_begins_like_the_writers_own_sign(tmp_path: Path) -> None:
    """`'=钙片` and `=鱼油` look alike in the sheet; each comes back as it was."""
    rollouts = [
        make_rollout(number=i, rewrite=f"{query} 用法用量", sample=make_sample(i, original_query=query))
        for i, query in enumerate(("=鱼油怎么吃", "'=钙片怎么吃", "＠益生菌怎么吃", "-葡萄籽怎么吃"))
    ]
    sheet = inspected(tmp_path, rollouts, "--review", "9") / "review.csv"
    filled = fill(sheet, prefer_policy)
    assert inspect.main(["--read-review", str(filled), "--pairs", str(tmp_path / "pairs.jsonl")]) == 0
    lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["original_query"] for line in lines} == {r.sample.original_query for r in rollouts}


def prefer_policy(rows: list[dict[str, str]]) -> None:
    for i, row in enumerate(rows):
        row["preferred"] = "TIE " if i == 5 else "Ａ" if is_policy_first(row["pair_id"]) else "b"
        row["note"] = '更清楚, "好"'


@pytest.mark.parametrize(
    "how", [{}, {"encoding": "gb18030"}, {"delimiter": ";"}, {"delimiter": "\t", "encoding": "utf-16"}]
)
def test_review_comes_back_as_canary_pairs(tmp_path: Path, sheet: Path, how: dict[str, str], capsys: Any) -> None:
    rows = csv_rows(sheet.parent, sheet.name)
    assert len(rows) == 6  # each pair once, none with an empty rewrite
    assert {len([row for row in rows if "改写" in row[side]]) for side in ("rewrite_a", "rewrite_b")} != {0, 6}
    filled = fill(sheet, prefer_policy, **how)
    pairs_file = tmp_path / "pairs.jsonl"
    assert inspect.main(["--read-review", str(filled), "--pairs", str(pairs_file)]) == 0
    pairs = read_pairs(pairs_file)
    assert len(pairs) == 6
    assert [pair.preferred for pair in pairs].count("tie") == 1
    for pair in pairs:
        assert pair.context.history_context == "用户: 你好\n助手: 您好"
        assert pair.note == '更清楚, "好"'
        if pair.preferred != "tie":
            assert "改写" in (pair.rewrite_a if pair.preferred == "a" else pair.rewrite_b)
    assert f"={good_rewrite(3)} 改写" in {text for pair in pairs for text in (pair.rewrite_a, pair.rewrite_b)}
    assert "in 5 of 5 decided pairs: 100%" in capsys.readouterr().out


def test_changed_and_broken_rows_are_named(tmp_path: Path, sheet: Path, capsys: Any) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        prefer_policy(rows)
        rows[0]["rewrite_a"] += " 改过"
        rows[1]["preferred"] = "c"
        rows[2]["pair_id"] = "mine"
        rows[3]["preferred"] = ""
        rows.append(dict(rows[4]))
        del rows[5]

    pairs = tmp_path / "pairs.jsonl"
    assert inspect.main(["--read-review", str(fill(sheet, change)), "--pairs", str(pairs)]) == 1
    said = capsys.readouterr()
    for words in (
        "row 2: rewrite_a: was changed",
        "row 3: preferred: 'c' is none of a, b, tie",
        "row 4: pair_id: 'mine'",
        "row 7: pair_id: ",
        "2 of 6 pairs are not there any more",
    ):
        assert words in said.err
    assert "1 pairs; 1 rows not judged, 5 problems" in said.out
    assert len(pairs.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "lacks the columns"),
        ("", "empty"),
        (",".join(COLUMNS) + "\n", "no row says which"),
    ],
)
def test_sheet_that_is_none(tmp_path: Path, content: str, said: str, capsys: Any) -> None:
    (tmp_path / "r.csv").write_text(content)
    assert inspect.main(["--read-review", str(tmp_path / "r.csv"), "--pairs", str(tmp_path / "p.jsonl")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page of the odd rollouts, from disk and offline; its errors fail the test."""
    out = inspected(tmp_path, [*odd_rollouts(), *healthy_run(steps=4, prompts=4, siblings=4)])
    errors: list[str] = []
    requests: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 800})
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((out / "index.html").as_uri())
    yield opened
    assert not errors
    assert requests == [(out / "index.html").as_uri()]
    context.close()


@needs_chromium
def test_page_shows_hostile_text_as_text(page: Page) -> None:
    expect(page.locator("#found")).to_contain_text("rows match")
    assert page.title() == "Inspect run"
    assert page.locator("main script, main img, main b").count() == 0
    first = page.locator("article").first
    expect(first).to_contain_text("</script><script>document.title='owned'</script>")
    right_to_left = page.locator("article").nth(1).locator("dd").first
    expect(right_to_left).to_contain_text("⟨U+202E⟩")
    expect(right_to_left).to_contain_text("⟨U+0000⟩")
    assert right_to_left.get_attribute("dir") == "auto"
    expect(page.locator("article").nth(2)).to_contain_text("more characters are in the CSV file")
    # Nothing makes a phone scroll sideways.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@needs_chromium
def test_page_of_a_reward_that_is_no_number(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [make_rollout(number=1), make_rollout(number=2, rank=1)])
    log = next((run / FOLDER).glob("*.jsonl"))
    log.write_text(
        re.sub(r'"reward":[-0-9.e]+,"parts"', '"reward":NaN,"parts"', log.read_text(encoding="utf-8"), count=1)
    )
    assert inspect.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 0
    opened = browser.new_page()
    opened.goto((tmp_path / "out" / "index.html").as_uri())
    expect(opened.locator("#found")).to_contain_text("2 of 2 rows match")
    expect(opened.locator("article").first).not_to_contain_text("reward NaN")
    opened.close()


@needs_chromium
def test_page_filters(page: Page) -> None:
    page.select_option("#odd", "worse than the query itself")
    expect(page.locator("article")).to_have_count(1)
    page.click("text=Clear")
    page.select_option("#kind", "gated")
    assert page.locator("article").count() == page.locator("article .gated").count() > 0
    page.click("text=Clear")
    page.select_option("#slice", "hostile")
    expect(page.locator("article")).to_have_count(len(HOSTILE))
    page.fill("#text", "سعر")
    expect(page.locator("article")).to_have_count(1)
    page.fill("#text", "nothing like it")
    expect(page.locator("#found")).to_contain_text("0 of")
    page.click("text=Clear")
    # By a part of the reward: range and order.
    page.select_option("#part", "judge")
    page.fill("#low", "0.05")
    page.select_option("#order", "down")
    shown = [float(text.split("judge +")[1].split()[0]) for text in page.locator("article").all_inner_texts()]
    assert shown and shown == sorted(shown, reverse=True) and min(shown) >= 0.05
    page.click("text=Clear")
    page.fill("#first", "3")
    page.fill("#last", "3")
    texts = page.locator("article h2").all_inner_texts()
    assert texts and all("step 3" in text for text in texts)
    page.click("text=Clear")
    expect(page.locator("article")).to_have_count(50)
    page.click("#more")
    assert page.locator("article").count() > 50
