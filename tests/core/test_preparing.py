import pytest

from twinguide.errors import ScenarioError
from twinguide.preparing import make_folder


def test_a_folder_that_a_run_writes_is_refused_and_left_alone_until_the_run_ends(tmp_path):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "session.mcap").write_text("first")
        with pytest.raises(ScenarioError, match="another run writes"):
            make_folder(out)
        assert (out / "session.mcap").read_text() == "first"
    with make_folder(out):
        assert not (out / "session.mcap").exists()


def test_what_is_no_session_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(ScenarioError, match="Name another folder"):
        make_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.docx"]
