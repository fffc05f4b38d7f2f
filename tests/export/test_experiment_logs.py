"""Logs and event files that were damaged, merged or exported: what does not count is counted, or refused."""

import json

import pytest

from export.analyse_experiment import main

AT = "2026-11-20T10:00:00.000+00:00"


def answer(number: int, arm: str = "", **changes) -> dict:
    """The answer to user `number`; users of even numbers get arm a."""
    return {
        "kind": "answer", "at": AT, "request_id": f"r{number}", "tenant_id": "t", "experiment": "x", "control": "a",
        "treatment": "b", "share": 0.5, "arm": arm or "ab"[number % 2], "unit": f"u{number}", "keyed": True,
        "source": "b", "failure": "", "version": "", "ms": 3.0, "cut": False, **changes,
    }  # fmt: skip


def interleaved(number: int, **changes) -> dict:
    """A list shown to user `number`: d1 of team a, d2 of team b."""
    return {
        "kind": "interleaved", "at": AT, "request_id": f"i{number}", "tenant_id": "t", "experiment": "x",
        "unit": f"u{number}", "a": "8b", "b": "32b", "failed": [], "shown": [["d1", "a"], ["d2", "b"]], **changes,
    }  # fmt: skip


TWENTY = [answer(number) for number in range(20)]


def analyse(folder, lines, *options) -> dict:
    """What the analysis writes; its JSON holds no number that JSON does not have."""
    (folder / "unit.key").write_text("00" * 32)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "outcomes_2026-11-20.jsonl").write_text("\n".join(texts) + "\n")
    out = folder / "found.json"
    arguments = ["--log", str(folder), "--tenant", "t", "--experiment", "x", "--out", str(out)]
    assert main([*arguments, *map(str, options)]) == 0
    return json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def users(found: dict) -> dict[str, int]:
    return {arm: figures["n"] for arm, figures in found["ab"]["arms"].items()}


BROKEN = {
    "share is a text": answer(90, share="0.5"),
    "share is none": '{"kind": "answer", "share": NaN, ' + json.dumps(answer(90))[1:].replace('"share": 0.5, ', ""),
    "share above 1": answer(90, share=1.5),
    "no time": answer(90, at="yesterday"),
    "time is a number": answer(90, at=1764300000),
    "year 1 in China": answer(90, at="0001-01-01T00:00:00+08:00"),
    "no latency": answer(90, ms=None),
    "latency is a text": answer(90, ms="3"),
    "negative latency": answer(90, ms=-1),
    "no user": answer(90, unit=""),
    "user is null": answer(90, unit=None),
    "test is a list": answer(90, experiment=["x"]),
    "kind is a list": answer(90, kind=["answer"]),
    "unknown kind": answer(90, kind="reply"),
    "a field is missing": {key: value for key, value in answer(90).items() if key != "source"},
    "event's request is a list": {"kind": "event", "at": AT, "tenant_id": "t", "event": "sale", "request_id": ["r1"]},
    "list without teams": interleaved(90, shown=[["d1"]]),
    "no object": "[1]",
    "torn": '{"kind": "answer", "at": "2026',
    "nested too deeply": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_counts_for_nothing_and_is_counted(tmp_path, what):
    found = analyse(tmp_path, [*TWENTY, BROKEN[what]])
    assert found["left_out"] == {"broken lines of the log": 1} and users(found) == {"a": 10, "b": 10}


def test_a_log_of_broken_lines_alone_is_refused(tmp_path, capsys):
    (tmp_path / "outcomes_1.jsonl").write_text(json.dumps(answer(0, ms=None)))
    assert main(["--log", str(tmp_path), "--tenant", "t", "--experiment", "x"]) == 2
    assert "nothing of test 'x' can be used: 1 broken lines" in capsys.readouterr().err


def test_lines_that_are_there_twice_count_once(tmp_path):
    """Two copies of a log were merged."""
    found = analyse(tmp_path, [*TWENTY, *TWENTY, interleaved(1), interleaved(1)])
    assert found["left_out"] == {"lines of the log that are there twice": 21}
    assert found["ab"]["arms"]["a"]["answers"] == 10 and found["interleaving"]["impressions"] == 1


def test_answers_of_a_third_arm_are_nobodys(tmp_path):
    clicks = {"kind": "event", "at": AT, "tenant_id": "t", "event": "conversion", "request_id": "r99"}
    found = analyse(tmp_path, [*TWENTY, answer(99, "c"), clicks])
    assert users(found) == {"a": 10, "b": 10} and found["ab"]["sequential"]["events"] == [0, 0]
    assert found["left_out"] == {"answers of an arm that is none of the test's": 1, "events of nobody in this test": 1}


@pytest.mark.parametrize(("share", "arm"), [(0, "a"), (1, "b")])
def test_a_test_with_one_arm_compares_nothing(tmp_path, share, arm):
    found = analyse(tmp_path, [answer(number, arm, share=share) for number in range(4)])
    assert found["ab"]["verdict"] == f"nothing to compare: every user gets {arm} (share {share})"
    assert found["ab"]["difference"]["value"] is None


@pytest.mark.parametrize("lines", [TWENTY[:1], TWENTY[:2], TWENTY[::2], TWENTY[1::2]])
def test_small_and_empty_arms_have_no_invented_numbers(tmp_path, lines):
    found = analyse(tmp_path, lines)
    assert sum(users(found).values()) == len(lines) and found["ab"]["sequential"]["winner"] is None
    assert all(arm["rate"] is None for arm in found["ab"]["arms"].values() if not arm["n"])


def test_events_of_another_name_are_named(tmp_path, capsys):
    (tmp_path / "e.csv").write_text("event,request_id\nConversion,r1\npurchase,r2\nconversion,r3\n")
    found = analyse(tmp_path, TWENTY, "--events", tmp_path / "e.csv")
    assert found["ab"]["other_events"] == {"Conversion": 1, "purchase": 1}
    assert found["ab"]["arms"]["b"]["successes"] == 1
    assert "not counted here: Conversion (1 users), purchase (1 users)" in capsys.readouterr().out


def test_a_request_id_of_several_users_joins_nobody(tmp_path):
    (tmp_path / "e.csv").write_text("event,request_id\nconversion,gateway\n")
    shared = [answer(number, request_id="gateway", unit=f"v{number}") for number in range(4)]
    found = analyse(tmp_path, [*TWENTY, *shared], "--events", tmp_path / "e.csv")
    assert found["left_out"] == {"events of a request id that several users share": 1}
    assert sum(arm["successes"] for arm in found["ab"]["arms"].values()) == 0


def test_lists_of_other_rewriters_or_of_a_repeated_request_are_left_out(tmp_path):
    lines = [interleaved(0, b="old"), interleaved(1), interleaved(2), interleaved(2, unit="else")]
    click = {"kind": "event", "at": AT, "tenant_id": "t", "event": "click", "request_id": "i2", "doc_id": "d2"}
    found = analyse(tmp_path, [*lines, click])
    assert found["left_out"] == {"lists of a request id that was there before": 1, "lists of other rewriters": 1}
    assert (found["interleaving"]["impressions"], found["interleaving"]["wins_b"]) == (2, 1)


def test_names_are_shown_as_they_are(tmp_path, capsys):
    """A rewriter's name is no markup of the terminal."""
    analyse(tmp_path, [answer(1, "[/b]", treatment="[/b]"), interleaved(0, a="[red]8b")])
    shown = capsys.readouterr().out
    assert "│ [/b]" in shown and "[red]8b wins 0" in shown


TABLES = {
    "gbk.csv": "event,user_id,request_id\nconversion,李,r1\n".encode("gbk"),
    "utf16.csv": "event,user_id,request_id\nconversion,李,r1\n".encode("utf-16"),
    "bom.csv": "\ufeffEvent,request_id\nconversion,r1\n".encode(),
    "semicolon.csv": b"event;request_id\nconversion;r1\n",
    "tab.CSV": b"event\trequest_id\nconversion\tr1\n",
    "blank_rows.csv": b"event,request_id,at\nconversion,r1,\n,,\n\n",
    "nulls.jsonl": b'{"event": "conversion", "request_id": "r1", "user_id": null, "at": null}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_events_are_read_as_spreadsheets_save_them(tmp_path, name):
    (tmp_path / name).write_bytes(TABLES[name])
    found = analyse(tmp_path, TWENTY, "--events", tmp_path / name)
    assert found["ab"]["arms"]["b"]["successes"] == 1 and not found["left_out"]


REFUSED = {
    "empty.csv": (b"", "the file is empty"),
    "no_event.csv": (b"name,request_id\nconversion,r1\n", "row 1: no column is named event"),
    "more_cells.csv": (b"event,request_id\nconversion,r1,x\n", "row 2: has more cells"),
    "long.csv": (b"event,request_id\nconversion," + b"r" * 200_000, "not a table"),
    "nobody.csv": (b"event,request_id\nconversion,\n", "row 2: needs event"),
    "nobody.jsonl": (b'{"event": "conversion", "request_id": null}\n', "row 1: needs event"),
    "seconds.jsonl": (b'{"event": "conversion", "request_id": "r1", "at": 1764300000}\n', "row 1: at: '1764300000'"),
    "picture.csv": (bytes(range(256)) * 40, "encoding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_events_is_one_line(tmp_path, capsys, name):
    content, told = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "unit.key").write_text("00" * 32)
    (tmp_path / "outcomes_1.jsonl").write_text(json.dumps(answer(0)))
    arguments = ["--log", str(tmp_path), "--tenant", "t", "--experiment", "x", "--events", str(tmp_path / name)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error and name in error and error.count("\n") == 1


def test_days_are_those_of_utc_whatever_the_zone(tmp_path):
    """One o'clock in China is the day before; a basic-format day counts like any other."""
    log = [answer(number, at="2026-11-19T10:00:00.000+00:00") for number in range(20)]
    (tmp_path / "e.csv").write_text(
        "event,request_id,at\nconversion,r1,2026-11-21T01:00:00+08:00\nconversion,r3,20261120\n"
        "conversion,r5,2026-11-20\nconversion,r7,20261120T235959Z\n"
        + "".join(f"conversion,r{n},2026-11-20\n" for n in (9, 11, 13, 15, 17, 19))
    )
    ab = analyse(tmp_path, log, "--events", tmp_path / "e.csv", "--lift", "5")["ab"]
    assert ab["arms"]["b"]["successes"] == 10 and ab["sequential"]["decided_on"] == "2026-11-20"


@pytest.mark.parametrize("lift", ["0", "-0.1", "nan", "inf", "1e-300", "1e300"])
def test_a_lift_that_cannot_be_planned_for_is_refused(tmp_path, capsys, lift):
    for more in (["--plan", "--base-rate", "0.05"], ["--log", str(tmp_path), "--tenant", "t", "--experiment", "x"]):
        assert main([*more, "--lift", lift]) == 2
        assert f"--lift {float(lift):g}: expected" in capsys.readouterr().err
