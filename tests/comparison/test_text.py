"""What is printed."""

from noisy_images import systems

from repro.banks import Bank
from repro.comparison import compare

N = 60


def test_the_printed_tables_hold_every_rate(found):
    text = str(found)
    for row in found.table():
        assert f"{row['rate']:.3f}" in text
        assert f"{row['low']:.3f}-{row['high']:.3f}" in text
        assert f"{row['control_low']:.3f}-{row['control_high']:.3f}" in text
    for row in found.table("gl"):
        assert f"{row['count']} of {N}" in text


def test_many_systems_are_told_by_their_ends():
    images = systems(count=14)
    found = compare([Bank.from_images(each) for each in images], "Pixels", names=[f"s{k}" for k in range(14)])
    text = str(found)
    assert "highest and lowest of 91 pairs" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if not line.startswith("warning:")) <= 100
    rows = sorted((row for row in found.table("pairs") if row["score"] == "RP"), key=lambda row: -row["rate"])
    for row in (*rows[:5], *rows[-5:]):
        line = next(line for line in text.splitlines() if f" {row['first']} " in line and f" {row['second']} " in line)
        assert f"{row['rate']:.3f}" in line
        assert f"{row['control_rate']:.3f}" in line
