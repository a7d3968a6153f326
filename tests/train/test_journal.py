"""metrics.jsonl: whole lines, none twice."""

import json

import numpy as np

from fluojax.train.journal import Journal, read_journal


def test_lines_are_json_with_step_and_split(tmp_path):
    journal = Journal(tmp_path, start=0, say=print)
    journal.write(10, "train", {"loss": np.float32(0.5), "lr": 1e-3})
    journal.write(10, "val", {"dice": float("nan")})
    journal.close()
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text[0]) == {
        "step": 10,
        "split": "train",
        "loss": 0.5,
        "lr": 1e-3,
    }
    assert json.loads(text[1]) == {"step": 10, "split": "val", "dice": None}


def test_resuming_cuts_later_lines_and_a_torn_one(tmp_path):
    lines = [json.dumps({"step": s, "split": "train", "loss": s}) for s in (10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 40, "spl')
    journal = Journal(tmp_path, start=20, say=print)
    journal.write(30, "train", {"loss": 31})
    journal.close()
    assert [x["loss"] for x in read_journal(tmp_path / "metrics.jsonl")] == [10, 20, 31]


def test_random_bytes_are_passed_over(tmp_path):
    line = json.dumps({"step": 10, "split": "train"})
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\x00\n" + line.encode() + b"\n[1]\n")
    assert [x["step"] for x in read_journal(tmp_path / "metrics.jsonl")] == [10]


def test_training_goes_on_when_the_thread_of_tensorboard_has_died(tmp_path):
    told = []
    journal = Journal(tmp_path, start=0, say=told.append)
    worker = journal._board.file_writer.event_writer._worker
    worker.stop()
    assert not worker.is_alive()
    for step in range(40):  # more than its queue holds by default
        journal.write(step, "train", {"loss": 0.5})
    journal.close()
    assert len(told) == 1 and "TensorBoard" in told[0]
    assert len(read_journal(tmp_path / "metrics.jsonl")) == 40


def test_a_log_that_cannot_be_written_is_told_once(tmp_path):
    told = []
    journal = Journal(tmp_path, start=0, say=told.append)
    (tmp_path / "metrics.jsonl").mkdir()
    journal.write(1, "train", {"loss": 1.0})
    journal.write(2, "train", {"loss": 1.0})
    journal.close()
    assert len(told) == 1
    assert "not written" in told[0]
