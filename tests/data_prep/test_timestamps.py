"""Moments, as logs of servers, mail, databases and workbooks write them."""

from __future__ import annotations

import pytest

from data_prep.rows.timestamps import read_timestamp


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("02/Jan/2024:03:04:05 +0800", "2024-01-02T03:04:05+08:00"),
        ("[02/Jan/2024:03:04:05 +0800]", "2024-01-02T03:04:05+08:00"),
        ("Tue, 02 Jan 2024 03:04:05 +0800", "2024-01-02T03:04:05+08:00"),
        ("Tue Jan  2 03:04:05 2024", "2024-01-02T03:04:05"),
        ("2024-01-02 03:04:05.123456789 +0800 CST m=+0.012", "2024-01-02T03:04:05.123456+08:00"),
        ("Jan 2, 2024 @ 03:04:05.678", "2024-01-02T03:04:05.678000"),  # Kibana
        ("January 2nd 2024, 03:04:05.678", "2024-01-02T03:04:05.678000"),
        ("2024-01-02T03:04:05.678Z", "2024-01-02T03:04:05.678000+00:00"),
        ("2024-01-02T03:04:05,678+0800", "2024-01-02T03:04:05.678000+08:00"),
        ('{"$date": "2024-01-02T03:04:05Z"}', "2024-01-02T03:04:05+00:00"),
        ({"$date": {"$numberLong": "1704164645000"}}, "2024-01-02T03:04:05+00:00"),
        ("20240102030405", "2024-01-02T03:04:05"),
        ("202401020304", "2024-01-02T03:04:00"),
        ("1704164645", "2024-01-02T03:04:05+00:00"),
        (1704164645123, "2024-01-02T03:04:05.123000+00:00"),
    ],
)
def test_a_moment_is_read_as_it_is_written(written: object, moment: str) -> None:
    assert read_timestamp(written) == moment


@pytest.mark.parametrize("written", ["01/02/2024", "03:04:05", "Jan 2024", "昨天", "", None, "9" * 14, {}, True])
def test_what_has_no_one_reading_is_not_understood(written: object) -> None:
    assert read_timestamp(written) == ""
