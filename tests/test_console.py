"""Console, atomic files and errors: what people see and what survives."""

import io

import pytest

from fluojax import errors, files
from fluojax.console import Console, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_outside_a_terminal_progress_is_rare_and_parsable():
    stream = io.StringIO()
    console = Console(stream=stream)
    for step in range(1, 60):
        console.progress(step, {"step": f"{step}/59", "left": "2 min"}, last=step == 59)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [
        f"step={k}/59" for k in (1, 2, 5, 10, 20, 50, 59)
    ]
    assert lines[0] == "step=1/59 left=2_min"


def test_on_a_terminal_one_line_is_rewritten():
    stream = Terminal()
    console = Console(stream=stream)
    for step in range(100):
        console.progress(step, {"step": step}, last=step == 99)
    console.line("done")
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert text.count("\r") <= 3


def test_the_log_has_no_control_characters(tmp_path):
    console = Console(stream=Terminal())
    console.log_to(tmp_path / "log.txt")
    console.line("a\x1b[31mb\rc")
    assert (tmp_path / "log.txt").read_text() == "a[31mbc\n"


def test_a_closed_pipe_stops_nothing():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(stream=Closed())
    console.line("nobody listens")
    console.progress(1, {"step": 1}, last=True)


def test_quiet_says_nothing_but_logs(tmp_path):
    stream = io.StringIO()
    console = Console(quiet=True, stream=stream)
    console.log_to(tmp_path / "log.txt")
    console.line("kept")
    assert stream.getvalue() == ""
    assert (tmp_path / "log.txt").read_text() == "kept\n"


def test_an_ascii_terminal_gets_question_marks():
    raw = io.BytesIO()
    console = Console(stream=io.TextIOWrapper(raw, encoding="ascii"))
    console.line("2 × cpu")
    assert raw.getvalue() == b"2 ? cpu\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (41.4, "41 s"), (1080, "18 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    files.write_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_json_has_null_for_what_is_not_finite():
    text = files.to_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": 2}})
    assert (
        text.replace("\n", "").replace(" ", "")
        == '{"a":null,"b":[null,1.5],"c":{"d":2}}'
    )


def test_lists_in_messages_end_after_five():
    assert errors.some(range(3)) == "0, 1, 2"
    assert errors.some(range(9)) == "0, 1, 2, 3, 4 and 4 more"
    assert errors.nearest("dise", ["dice", "focal"]) == " (did you mean dice?)"
    assert errors.nearest("xyz", ["dice"]) == ""
