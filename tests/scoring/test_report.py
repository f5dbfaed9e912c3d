"""The report as a reader gets it: one page that needs nothing beside it, built from the recording alone."""

import base64
import io
import json
import re
import resource
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from PIL import Image

from twinguide.bus.catalogue import Catalogue, Header, tag_of
from twinguide.errors import RecordingError
from twinguide.messages import PartState, Refusal
from twinguide.recording import BROKEN_OFF, Recorder
from twinguide.report import build_report, page, plots
from twinguide.scoring.evidence import load

SECTIONS = ("Errors", "Breathing", "Horizon and silence", "Needle", "Latency", "Workflow", "Findings", "Parts")


class Tags(HTMLParser):
    """Check that what is opened is closed, and collect sources."""

    VOID = frozenset({"meta", "img"})
    OPTIONAL = frozenset({"html"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.OPTIONAL:
            assert self.open.pop() == tag


def checked(path) -> tuple[str, Tags]:
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    return text, tags


def pictures(tags: Tags) -> list[Image.Image]:
    uris = [source for source in tags.sources if source.startswith("data:image/png;base64,")]
    return [Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) for uri in uris]


def test_the_report_needs_nothing_beside_it(session):
    folder = session(cough_at=2.0, word_at=2.2, stage_us=700)
    (folder / "stills").mkdir()
    Image.new("RGB", (1600, 800), (0, 90, 0)).save(folder / "stills" / "guide-0001.png")
    text, tags = checked(build_report(folder))
    assert all(source.startswith("data:") for source in tags.sources)
    for title in SECTIONS:
        assert f"<h2>{title}</h2>" in text
    drawn = pictures(tags)
    assert len(drawn) == 7  # errors, breathing, horizon, needle, stages, timeline, and the still
    assert drawn[-1].getpixel((10, 10)) == (0, 90, 0)
    assert all(image.width >= 600 for image in drawn)


def test_the_report_carries_the_summary_s_figures(session):
    folder = session(seconds=1.0, constant={"target": (3e-3, 0.0, 4e-3)})
    text, _ = checked(build_report(folder))
    assert "<b>5.00 mm</b>" in text
    summary = msgspec.json.decode((folder / "summary.json").read_bytes())
    assert summary["target_error_mm"]["mean"] == pytest.approx(5.0, abs=0.001)
    assert (folder / "timing.json").is_file()


def test_a_film_beside_the_page_is_linked(session):
    folder = session(seconds=0.1)
    (folder / "stereo.mp4").write_bytes(b"film")
    _, tags = checked(build_report(folder))
    assert "stereo.mp4" in tags.sources


def test_words_from_outside_cannot_become_markup(tmp_path):
    recorder, catalogue = Recorder(tmp_path, Catalogue()), Catalogue()
    state = PartState(part="<script>alert(1)</script>", state="dead", placement="process", reason='"><img src=x>')
    recorder.write("v1/state/hub/part", Header("twinguide.part_state/1", "hub", 1, 1, 0), catalogue.encode(state))
    recorder.close()
    text, tags = checked(build_report(tmp_path))
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in text


def test_parts_that_do_not_work_at_the_end_and_refused_messages_are_told(tmp_path):
    recorder, catalogue = Recorder(tmp_path, Catalogue()), Catalogue()
    lives = {
        "heart": ("running", "dead", "restarting", "stopped"),
        "ear": ("running", "hung", "restarting", "running", "stopped"),
    }
    told = [PartState(part=n, state=s, placement="process", reason="no cable") for n, of in lives.items() for s in of]
    told += [Refusal(part="ear", topic="v1/stream/ear/echo", reason="seen is nan", count=n) for n in (1, 4, 2)]
    for seq, message in enumerate(told):
        tag = tag_of(type(message))
        recorder.write(f"v1/{tag}", Header(tag, "hub", 1, seq, seq), catalogue.encode(message))
    recorder.close()
    text, _ = checked(build_report(tmp_path))
    assert "Parts that did not work at the end: heart." in text
    summary, timing = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("summary", "timing"))
    assert summary["plugins"]["heart"] == {"placement": "process", "state": "restarting", "reason": "no cable"}
    assert summary["plugins"]["ear"] == {"placement": "process"}
    refused = {"part": "ear", "topic": "v1/stream/ear/echo", "reason": "seen is nan", "count": 4}
    assert timing["refused"] == [refused]
    assert "seen is nan" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seconds": 0.5, "truth": False}, "Not scored: the recording holds no truth"),
        ({"seconds": 0.0}, "Not scored: no frame was shown while guiding"),
        ({"seconds": 0.5, "hidden": (0.0, 9.0)}, "Not scored: not shown"),
        ({"seconds": 0.02}, "of 2 while guiding"),
    ],
)
def test_a_session_that_lacks_something_still_has_a_report(session, changes, said):
    text, _ = checked(build_report(session(**changes)))
    assert said in text


def test_the_report_says_what_was_simulated_and_what_is_missing(session):
    folder = session()
    file = folder / "session.mcap"
    file.write_bytes(file.read_bytes()[:-400])
    said = []
    text, _ = checked(build_report(folder, say=said.append))
    assert "simulated by patient" in text
    assert len(said) == 1
    assert said[0].startswith("damaged: session.mcap")
    assert text.index("Damaged: session.mcap") < text.index("Research use") < text.index("<h2>")
    assert "loses the last 0.25 s at most of what had reached it, and all that is published until it runs" in text
    assert "must not be the sole source of position" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ended": "interrupted", "early": True}, "Ended early, after 2.0 s of 40 s of guidance: interrupted."),
        ({"ended": "interrupted", "early": True, "seconds": 0.0}, "Ended early, before guidance: interrupted."),
        ({"ended": ""}, "Breaks off after 2.0 s of 40 s of guidance: the run&#x27;s end was not recorded."),
    ],
)
def test_a_run_that_ended_before_its_time_is_told_so_first(session, changes, said):
    folder = session(**{"seconds": 2.02, "asked_s": 40.0, **changes})
    text, _ = checked(build_report(folder))
    assert text.index(said) < text.index("Research use")
    assert "at the end</span>" not in text  # what is known last is no end
    assert ("tip to target after 2.0 s of 40 s of guidance" in text) == ("seconds" not in changes)


def test_a_run_that_lasted_as_asked_carries_no_notice_of_its_end(session):
    text, _ = checked(build_report(session(ended="1 s of guidance")))
    assert "ended: 1 s of guidance" in text
    assert text.count('class="notice"') == 1
    assert "tip to target at the end" in text


def test_a_recorder_that_could_not_go_on_is_told_with_its_reason(session):
    folder, why = session(ended=""), "disk full, nothing more is recorded: No space left on device"
    later = Recorder(folder, Catalogue())
    later.metadata({BROKEN_OFF: why})
    later.close()
    text, _ = checked(build_report(folder))
    assert f"was not recorded ({why})" in text
    assert "Parts that did not work at the end: recorder." in text


def test_what_clock_or_mode_cannot_tell_has_no_figure(session):
    text, _ = checked(build_report(session("guided", seconds=0.5)))
    assert "frames missed" not in text  # in virtual time there are none
    assert "<h2>Errors</h2>" in text
    text, _ = checked(build_report(session("rehearsed", seconds=0.5, mode="rehearse", truth=False)))
    assert "<h2>Errors</h2>" not in text
    assert "tip to target</span>" not in text
    assert "is not known" not in text


def test_a_finding_is_told_with_its_structure_its_nearest_bound_and_when(tmp_path, session):
    evidence = load(session())
    recorder, catalogue = Recorder(tmp_path / "near", Catalogue()), Catalogue()
    frame = evidence.guide()[100]
    near = msgspec.structs.replace(frame.findings[0], name="distance", of="portal_vein", lower95=1.25, unit="mm")
    frame = msgspec.structs.replace(frame, findings=(near,))
    header = Header(tag_of(type(frame)), "loop", 1, 1, frame.t_ns - 3_000_000_000)
    recorder.write("v1/shown/frame", header, catalogue.encode(frame))
    recorder.close()
    text, _ = checked(build_report(tmp_path / "near"))
    row = re.search(r"<tr><td>distance</td>.*?</tr>", text)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row[0]) == [
        "distance",
        "portal vein",
        "caution",
        "1",
        "1",
        "3.00",
        "1.25",
    ]


def test_building_the_report_again_changes_no_figure(session):
    folder = session(seconds=0.5, sigma={"target": 5e-4})
    build_report(folder)
    first = (folder / "summary.json").read_bytes()
    build_report(folder)
    assert (folder / "summary.json").read_bytes() == first


def test_a_disk_without_room_leaves_no_half_written_page(session):
    folder = session(seconds=0.5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # room for the figures, none for the page
    try:
        with pytest.raises(RecordingError, match=r"report\.html"):
            build_report(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(folder.glob("report*"))
    assert (folder / "summary.json").is_file()


def test_the_error_plot_shows_the_curve_where_the_error_is():
    t_s, flat = np.linspace(0.0, 10.0, 200), np.full(200, 1.0)
    uri = plots.errors(t_s, {"target": flat}, flat * 4.0, [(5.0, 6.0)])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB")).astype(int)
    curve = np.argwhere(np.abs(pixels - (0x00, 0x72, 0xB2)).sum(axis=2) < 12)
    rows = curve[curve[:, 1] > pixels.shape[1] // 2, 0]  # right half: no legend there
    # the axis ends a little above 4 mm, so 1 mm lies in the lower third of the picture
    assert rows.min() > pixels.shape[0] * 0.6
    shade = np.argwhere(np.abs(pixels - (0xF7, 0xE6, 0xD9)).sum(axis=2) < 16)[:, 1]
    assert 0.45 < np.median(shade) / pixels.shape[1] < 0.75


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"),
        (True, "yes"),
        (1234.5, "1234"),
        (0.0, "0.00"),
        (1.239, "1.24"),
        (0.01234, "0.012"),
        (7, "7"),
        ("x", "x"),
    ],
)
def test_figures_are_told_for_a_person(value, told):
    assert page.figure(value) == told


def test_a_table_without_rows_and_a_section_without_content_are_absent():
    assert page.table(("a", "b"), []) == ""
    assert page.section("Title", "", "") == ""
    assert re.search(r'<td class="number">2</td>', page.table(("a",), [(2,)]))
